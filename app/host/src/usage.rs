//! What containers use: one answer for all that a page shows, so that a page that only watches costs little.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::StreamExt;
use http::Request;
use longshore_host_api::ApiError;
use longshore_host_api::types::ContainerUsage;

use crate::api;
use crate::service::Service;
use crate::web::docker;

/// The query of `GET /v1/usage`: names or IDs, with commas between them.
const PARAMETER: &str = "containers=";
/// More rows than a page shows at once are not asked for.
const MOST_CONTAINERS: usize = 200;
/// How many are asked for at a time: the engine has others to serve.
const AT_ONCE: usize = 3;

/// A sample of each container that answers; the others, which may have ended since, are left out.
pub async fn of_containers(
    query: Option<&str>,
    service: &Service,
) -> Result<BTreeMap<String, ContainerUsage>, ApiError> {
    let names: Vec<String> = wanted(query)?.into_iter().map(str::to_owned).collect();
    let socket = service.home().docker_socket();
    let samples = futures::stream::iter(names).map(move |name| sample(name, socket.clone()));
    let samples = samples.buffer_unordered(AT_ONCE);
    Ok(samples.filter_map(std::future::ready).collect().await)
}

async fn sample(name: String, socket: PathBuf) -> Option<(String, ContainerUsage)> {
    let path = format!("/containers/{name}/stats?stream=false&one-shot=true");
    let request = Request::get(path).body(api::whole(Vec::new())).ok()?;
    let (status, answer) = docker::ask(request, &socket).await.ok()?;
    let usage = serde_json::from_slice(&answer).ok();
    Some((name, usage.filter(|_| status.is_success())?))
}

fn wanted(query: Option<&str>) -> Result<Vec<&str>, ApiError> {
    let mut pairs = query.unwrap_or_default().split('&');
    let list = pairs
        .find_map(|pair| pair.strip_prefix(PARAMETER))
        .unwrap_or_default();
    let names: Vec<&str> = list.split(',').filter(|name| !name.is_empty()).collect();
    if names.len() > MOST_CONTAINERS {
        return Err(ApiError::invalid(format!(
            "no more than {MOST_CONTAINERS} containers are asked for at once, and these are {}",
            names.len()
        )));
    }
    match names.iter().find(|name| !docker::is_name(name)) {
        Some(name) => Err(ApiError::invalid(format!(
            "this is not a container's name or ID: {name}"
        ))),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let names = wanted(Some("a=b&containers=web-1,0123abc,,x_y.z")).unwrap();
        assert_eq!(names, ["web-1", "0123abc", "x_y.z"]);
        assert!(wanted(None).unwrap().is_empty());
        for bad in ["..", "a/../b", "a%2Fb", "a?b", "-a", "é"] {
            let query = format!("containers=ok,{bad}");
            let error = wanted(Some(&query)).unwrap_err();
            assert!(error.message.ends_with(bad), "{}", error.message);
        }
        let many = format!("containers={}", vec!["a"; 201].join(","));
        assert!(wanted(Some(&many)).unwrap_err().message.contains("201"));
    }
}
