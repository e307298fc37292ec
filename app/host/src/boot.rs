//! A start, and what it falls back to: the guest image before, and the settings before.

use std::sync::Arc;
use std::time::Duration;

use longshore_host_api::{ApiError, ErrorCode};
use longshore_vm::config::VmConfig;
use longshore_vm::image as guest_image;

use crate::good_image::{self, Image, Refused};
use crate::operation::Reporter;
use crate::phase::Phase;
use crate::service::Service;
use crate::{image, last_good, vm_process};

/// An engine that has run for so long has come up, and its user's first commands are through.
const SETTLED: Duration = Duration::from_secs(15);

impl Service {
    /// Boots with the settings; where those have changed since the engine last came up, and it does not come up with them, with the
    /// ones before.
    pub(crate) async fn boot(self: &Arc<Self>, reporter: &Reporter) -> Result<bool, ApiError> {
        if matches!(
            *self.vm().phase().borrow(),
            Phase::Running | Phase::Paused { .. }
        ) {
            return Ok(true);
        }
        let tried = self.stored_settings().await;
        let failure = match self.boot_an_image(reporter).await {
            Ok(already) => {
                if !already {
                    last_good::remember(self.home(), &tried);
                }
                return Ok(already);
            }
            Err(failure) => failure,
        };
        // Whatever else is wrong, the settings are not the cause of it.
        if failure.code != ErrorCode::StartFailed {
            return Err(failure);
        }
        let Some(good) = last_good::recall(self.home()) else {
            return Err(failure);
        };
        let safe = tried.back_to(&good);
        let Some(names) = self.exchange(&tried, &safe).await? else {
            return Err(failure);
        };
        reporter.notice(format!(
            "The engine does not start with the new {names}: {failure}. The settings before are tried."
        ));
        match self.boot_an_image(reporter).await {
            Ok(_) => Err(last_good::rolled_back(&names, failure)),
            Err(_) => {
                // Nor with those before: the new ones are not to blame, and stay.
                self.exchange(&safe, &tried).await?;
                Err(failure)
            }
        }
    }

    /// Boots the installed guest image or, where it is another and the installed one does not come up, the one before.
    async fn boot_an_image(self: &Arc<Self>, reporter: &Reporter) -> Result<bool, ApiError> {
        let installed =
            image::find().and_then(|folder| Image::at(folder).map_err(|error| error.to_string()));
        let images = good_image::candidates(self.home(), installed.as_ref().ok().cloned());
        let Some(first) = images.first() else {
            let why = installed.err().unwrap_or_default();
            return Err(ApiError::new(ErrorCode::Unavailable, why)
                .at_stage("check")
                .with_hint("build it, or set LONGSHORE_GUEST_IMAGE to its folder"));
        };
        let is_installed = |image: &Image| installed.as_ref().is_ok_and(|i| i == image);
        if !is_installed(first) {
            return self.boot_the_kept(&images, &installed, reporter).await;
        }
        let failure = match self.boot_image(first, reporter).await {
            Ok(already) => {
                good_image::forgive(self.home());
                if !already {
                    self.keep_later(first.clone());
                }
                return Ok(already);
            }
            Err(failure) => failure,
        };
        let Some(kept) = images.get(1) else {
            return Err(failure);
        };
        let damaged = match blame(&failure, first).await {
            Some(Blame::Damaged) => true,
            Some(Blame::Booted) if kept.digest != first.digest => false,
            _ => return Err(failure),
        };
        reporter.notice(format!(
            "The installed guest image does not start: {}. The one before is tried.",
            failure.message
        ));
        match self.boot_image(kept, reporter).await {
            Ok(already) => {
                let refused = Refused {
                    digest: first.digest.clone(),
                    why: failure.message,
                    damaged,
                };
                good_image::refuse(self.home(), &refused);
                reporter.notice(format!("Warning: {}", warning(&refused)));
                Ok(already)
            }
            Err(second) => Err(neither(failure, &second)),
        }
    }

    /// Boots the kept image first: the installed one is known not to come up, or is none.
    async fn boot_the_kept(
        self: &Arc<Self>,
        images: &[Image],
        installed: &Result<Image, String>,
        reporter: &Reporter,
    ) -> Result<bool, ApiError> {
        if let Err(why) = installed {
            let refused = Refused {
                digest: String::new(),
                why: why.clone(),
                damaged: true,
            };
            good_image::refuse(self.home(), &refused);
        }
        let failure = match self.boot_image(&images[0], reporter).await {
            Ok(already) => {
                if let Some(refused) = good_image::refused(self.home()) {
                    reporter.notice(format!("Warning: {}", warning(&refused)));
                }
                return Ok(already);
            }
            Err(failure) => failure,
        };
        let Some(installed) = images.get(1) else {
            return Err(failure);
        };
        if blame(&failure, &images[0]).await.is_none() {
            return Err(failure);
        }
        // Nothing is lost with another try.
        match self.boot_image(installed, reporter).await {
            Ok(already) => {
                good_image::forgive(self.home());
                self.keep_later(installed.clone());
                Ok(already)
            }
            Err(second) => Err(neither(second, &failure)),
        }
    }

    async fn boot_image(&self, image: &Image, reporter: &Reporter) -> Result<bool, ApiError> {
        let config = self.vm_config(image.folder.clone(), reporter).await?;
        self.vm().start(config, reporter).await
    }

    /// Keeps a copy of an image that has come up, once the engine has run for a while.
    fn keep_later(self: &Arc<Self>, image: Image) {
        let service = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SETTLED).await;
            if !matches!(*service.vm().phase().borrow(), Phase::Running) {
                return;
            }
            let home = service.home().clone();
            let kept = tokio::task::spawn_blocking(move || good_image::keep(&home, &image)).await;
            match kept {
                Ok(Ok(Some(bytes))) => {
                    tracing::info!(
                        mib = bytes >> 20,
                        "kept the guest image, for updates that do not start"
                    );
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an update of the guest image that does not start cannot be taken back");
                }
                Err(error) => tracing::warn!(%error, "keeping the guest image"),
            }
        });
    }

    /// That the VM runs with another image than the installed one, why, and what to do.
    pub fn image_warning(&self) -> Option<String> {
        let refused = good_image::refused(self.home())?;
        let phase = self.vm().phase().borrow().clone();
        if matches!(phase, Phase::Stopped | Phase::Failed { .. }) {
            return None;
        }
        let booted: VmConfig = vm_process::last_config(self.home())?;
        let kept = self.home().good_image_folder();
        (booted.guest_image.starts_with(kept)).then(|| warning(&refused))
    }
}

fn warning(refused: &Refused) -> String {
    let advice = match refused.damaged {
        true => "install Longshore again",
        false => {
            "the next update is tried by itself, this one with: longshore stop, then longshore start --retry-image"
        }
    };
    format!(
        "the engine runs with the guest image before, as the installed one does not start ({}): {advice}",
        refused.why
    )
}

/// What the user is told when no image comes up.
fn neither(failure: ApiError, before: &ApiError) -> ApiError {
    let nor = format!(
        "the guest image before does not start either: {}",
        before.message
    );
    ApiError {
        hint: Some(match failure.hint {
            Some(hint) => format!("{hint}; {nor}"),
            None => nor,
        }),
        ..failure
    }
}

enum Blame {
    /// Its files are not those that the manifest names; nothing was booted.
    Damaged,
    /// It was booted, or QEMU refused it.
    Booted,
}

/// Whether the image may be why a start failed.
async fn blame(failure: &ApiError, image: &Image) -> Option<Blame> {
    if failure.code != ErrorCode::StartFailed {
        return None;
    }
    match failure.stage.as_deref() {
        // The VM's process itself did not start.
        Some("vm") => None,
        // Of all that is checked before the boot, the image's files alone.
        Some("check") => {
            let folder = image.folder.clone();
            let read = tokio::task::spawn_blocking(move || guest_image::verify(&folder)).await;
            matches!(read, Ok(Err(_))).then_some(Blame::Damaged)
        }
        _ => Some(Blame::Booted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_the_image_can_cause_is_its_fault() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image {
            folder: folder.path().to_owned(),
            digest: String::new(),
        };
        let failed = |code, stage: &str| ApiError::new(code, "it failed").at_stage(stage);
        let cases = [
            (failed(ErrorCode::StartFailed, "kernel"), true),
            (failed(ErrorCode::StartFailed, "engine"), true),
            // There is no file of the image at all.
            (failed(ErrorCode::StartFailed, "check"), true),
            (failed(ErrorCode::StartFailed, "vm"), false),
            (failed(ErrorCode::Conflict, "kernel"), false),
        ];
        for (failure, expected) in cases {
            let found = blame(&failure, &image).await.is_some();
            assert_eq!(found, expected, "{failure:?}");
        }
    }
}
