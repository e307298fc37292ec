//! The images service: names for manifests in the content store.

use std::sync::Arc;

use longshore_supervisor_api::server::images::Images;
use longshore_supervisor_api::services::v1::*;
use tonic::{Request, Response, Status};

use crate::core::{Core, ensure_namespace, now, update_labels};
use crate::error::{Error, Result};
use crate::filter::{Filters, label};
use crate::request::Scope;
use crate::store::{self, Records, Write, key};

pub struct ImagesService(pub Arc<Core>);

/// containerd's image events; the client crate leaves their protos out.
#[derive(Clone, PartialEq, prost::Message)]
struct NameAndLabels {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(map = "string, string", tag = "2")]
    labels: std::collections::HashMap<String, String>,
}

macro_rules! image_event {
    ($publish:ident, $name:literal, $topic:literal) => {
        pub fn $publish(core: &Core, namespace: &str, image: &Image) {
            let event = NameAndLabels {
                name: image.name.clone(),
                labels: image.labels.clone(),
            };
            let any = prost_types::Any {
                type_url: concat!("containerd.events.", $name).into(),
                value: prost::Message::encode_to_vec(&event),
            };
            core.events.publish_any(namespace, $topic, Some(any));
        }
    };
}

image_event!(publish_create, "ImageCreate", "/images/create");
image_event!(publish_update, "ImageUpdate", "/images/update");
image_event!(publish_delete, "ImageDelete", "/images/delete");

fn absent(name: &str) -> Error {
    Error::NotFound(format!("image {name:?}"))
}

fn validate(image: Option<Image>) -> Result<Image> {
    let image = image.ok_or_else(|| Error::InvalidArgument("image is required".into()))?;
    if image.name.is_empty() || image.name.contains('\0') {
        return Err(Error::InvalidArgument(
            "image name must not be empty".into(),
        ));
    }
    let target = image.target.as_ref();
    let target = target.ok_or_else(|| Error::InvalidArgument("image target must be set".into()))?;
    target.digest.parse::<crate::digest::Digest>()?;
    Ok(image)
}

pub fn find(records: &impl Records, namespace: &str, name: &str) -> Result<Image> {
    records
        .get(store::IMAGES, &key(&[namespace, name]))?
        .ok_or_else(|| absent(name))
}

/// Creates a name or moves it to another target. Says whether it is new.
pub fn put(tx: &Write, namespace: &str, image: &mut Image) -> Result<bool> {
    ensure_namespace(tx, namespace)?;
    let row = key(&[namespace, &image.name]);
    let old: Option<Image> = tx.get(store::IMAGES, &row)?;
    image.created_at = old.as_ref().map_or_else(now, |old| old.created_at);
    image.updated_at = now();
    tx.put(store::IMAGES, &row, image)?;
    Ok(old.is_none())
}

fn apply_update(current: &mut Image, wanted: &Image, paths: &[String]) -> Result<()> {
    for path in paths {
        let target = || wanted.target.clone().unwrap_or_default();
        match path.as_str() {
            "target" => current.target = wanted.target.clone(),
            "annotations" => {
                current.target.get_or_insert_default().annotations = target().annotations;
            }
            path if path.starts_with("annotations.") => {
                let mut annotations = target().annotations;
                let name = &path["annotations.".len()..];
                let all = &mut current.target.get_or_insert_default().annotations;
                match annotations.remove(name) {
                    Some(value) => all.insert(name.into(), value),
                    None => all.remove(name),
                };
            }
            path if update_labels(&mut current.labels, &wanted.labels, path) => {}
            other => {
                let message = format!("cannot update {other:?} field on image {:?}", current.name);
                return Err(Error::InvalidArgument(message));
            }
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl Images for ImagesService {
    async fn get(
        &self,
        request: Request<GetImageRequest>,
    ) -> Result<Response<GetImageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let image = find(
            &self.0.store.read()?,
            &scope.namespace,
            &request.into_inner().name,
        )?;
        Ok(Response::new(GetImageResponse { image: Some(image) }))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut images: Vec<Image> = self
            .0
            .store
            .read()?
            .in_namespace(store::IMAGES, &scope.namespace)?;
        images.retain(|image| {
            let target = image.target.as_ref();
            filters.matches(|path| match path {
                ["name"] => Some(image.name.clone()),
                ["target", "digest"] => target.map(|target| target.digest.clone()),
                ["target", "mediatype"] => target.map(|target| target.media_type.clone()),
                ["labels", name @ ..] => label(&image.labels, name),
                ["annotations", name @ ..] => label(&target?.annotations, name),
                _ => None,
            })
        });
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let mut image = validate(request.into_inner().image)?;
        let namespace = scope.namespace.clone();
        let image = self
            .0
            .store
            .write(move |tx| {
                if tx
                    .raw(store::IMAGES, &key(&[&namespace, &image.name]))?
                    .is_some()
                {
                    return Err(Error::AlreadyExists(format!("image {:?}", image.name)));
                }
                put(tx, &namespace, &mut image)?;
                Ok(image)
            })
            .await?;
        publish_create(&self.0, &scope.namespace, &image);
        Ok(Response::new(CreateImageResponse { image: Some(image) }))
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let wanted = request
            .image
            .ok_or_else(|| Error::InvalidArgument("image is required".into()))?;
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .filter(|paths| !paths.is_empty());
        let paths = paths.unwrap_or_else(|| vec!["labels".into(), "target".into()]);
        let namespace = scope.namespace.clone();
        let image = self
            .0
            .store
            .write(move |tx| {
                let mut current = find(tx, &namespace, &wanted.name)?;
                apply_update(&mut current, &wanted, &paths)?;
                let mut current = validate(Some(current))?;
                put(tx, &namespace, &mut current)?;
                Ok(current)
            })
            .await?;
        publish_update(&self.0, &scope.namespace, &image);
        Ok(Response::new(UpdateImageResponse { image: Some(image) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let DeleteImageRequest { name, sync, target } = request.into_inner();
        let namespace = scope.namespace.clone();
        let name = self
            .0
            .store
            .write(move |tx| {
                let image = find(tx, &namespace, &name)?;
                let digest = |of: &Option<longshore_supervisor_api::types::Descriptor>| {
                    of.as_ref().map(|target| target.digest.clone())
                };
                if target.is_some() && digest(&target) != digest(&image.target) {
                    return Err(Error::NotFound(format!(
                        "image {name:?} has target {:?}",
                        digest(&image.target)
                    )));
                }
                tx.delete(store::IMAGES, &key(&[&namespace, &name]))?;
                Ok(name)
            })
            .await?;
        let image = Image {
            name,
            ..Image::default()
        };
        publish_delete(&self.0, &scope.namespace, &image);
        if sync {
            self.0.collect().await?;
        } else {
            self.0.collect_soon();
        }
        Ok(Response::new(()))
    }
}
