//! bollard, the Rust client of the Docker API, on our socket: its models parse every answer strictly.

mod common;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ExecConfig, HostConfig, NetworkConnectRequest, NetworkCreateRequest,
    PortBinding, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, DataUsageOptions,
    DownloadFromContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions,
    InspectNetworkOptions, ListContainersOptionsBuilder, ListImagesOptions, ListNetworksOptions,
    ListVolumesOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, StatsOptionsBuilder,
    StopContainerOptions, TopOptions, UploadToContainerOptionsBuilder, WaitContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use common::registry::Registry;
use futures::{Stream, TryStreamExt};
use std::collections::HashMap;

type Outcome<T = ()> = Result<T, bollard::errors::Error>;

const NAME: &str = "driven";
const SCRIPT: &str = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done";

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|word| (*word).to_owned()).collect())
}

async fn said(output: impl Stream<Item = Outcome<LogOutput>>) -> Outcome<String> {
    let parts: Vec<LogOutput> = output.try_collect().await?;
    Ok(parts.iter().map(ToString::to_string).collect())
}

async fn images(docker: &Docker, image: &str) -> Outcome {
    let options = CreateImageOptionsBuilder::default()
        .from_image(image)
        .build();
    let steps: Vec<_> = docker
        .create_image(Some(options), None, None)
        .try_collect()
        .await?;
    assert!(!steps.is_empty());
    let inspected = docker.inspect_image(image).await?;
    assert_eq!(
        inspected.repo_tags.as_deref(),
        Some(&[image.to_owned()][..])
    );
    assert!(!docker.image_history(image).await?.is_empty());
    let listed = docker.list_images(None::<ListImagesOptions>).await?;
    assert_eq!(listed.len(), 1);
    Ok(())
}

async fn create(docker: &Docker, image: &str) -> Outcome<String> {
    let volume = VolumeCreateRequest {
        name: Some("kept".to_owned()),
        ..Default::default()
    };
    docker.create_volume(volume).await?;
    let network = NetworkCreateRequest {
        name: "between".to_owned(),
        ..Default::default()
    };
    docker.create_network(network).await?;
    let port = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(String::new()),
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: words(&["sh", "-c", SCRIPT]),
        labels: Some(HashMap::from([("driver".to_owned(), "bollard".to_owned())])),
        host_config: Some(HostConfig {
            binds: words(&["kept:/kept"]),
            memory: Some(64 << 20),
            port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![port]))])),
            ..Default::default()
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(NAME).build();
    let made = docker.create_container(Some(options), body).await?;
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    Ok(made.id)
}

async fn look(docker: &Docker, id: &str) -> Outcome {
    let filters = HashMap::from([("label", vec!["driver=bollard"])]);
    let options = ListContainersOptionsBuilder::default()
        .size(true)
        .filters(&filters)
        .build();
    let listed = docker.list_containers(Some(options)).await?;
    assert_eq!(listed[0].id.as_deref(), Some(id));
    let inspected = docker
        .inspect_container(NAME, None::<InspectContainerOptions>)
        .await?;
    let state = inspected.state.expect("a state");
    assert_eq!((state.running, state.exit_code), (Some(true), Some(0)));
    let ports = inspected
        .network_settings
        .and_then(|network| network.ports)
        .expect("ports");
    assert!(
        ports["80/tcp"]
            .as_ref()
            .is_some_and(|bound| bound[0].host_port.is_some())
    );
    let processes = docker.top_processes(NAME, None::<TopOptions>).await?;
    assert!(processes.processes.is_some_and(|list| !list.is_empty()));
    let options = StatsOptionsBuilder::default().stream(false).build();
    let samples: Vec<_> = docker.stats(NAME, Some(options)).try_collect().await?;
    let memory = samples[0].memory_stats.as_ref().expect("memory");
    assert_eq!(memory.limit, Some(64 << 20));
    assert!(memory.usage.is_some_and(|bytes| bytes > 0));
    Ok(())
}

async fn exec(docker: &Docker) -> Outcome {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: words(&["GREETING=hello"]),
        cmd: words(&[
            "sh",
            "-c",
            "echo $GREETING > /kept/said; cat /kept/said; exit 3",
        ]),
        ..Default::default()
    };
    let id = docker.create_exec(NAME, config).await?.id;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&id, None).await? else {
        panic!("not attached");
    };
    assert_eq!(said(output).await?, "hello\n");
    let ended = docker.inspect_exec(&id).await?;
    assert_eq!((ended.running, ended.exit_code), (Some(false), Some(3)));
    Ok(())
}

async fn files(docker: &Docker) -> Outcome {
    let options = DownloadFromContainerOptionsBuilder::default()
        .path("/kept/said")
        .build();
    let archive: Vec<_> = docker
        .download_from_container(NAME, Some(options))
        .try_collect()
        .await?;
    let archive = archive.concat();
    let options = UploadToContainerOptionsBuilder::default()
        .path("/tmp")
        .build();
    let body = bollard::body_full(archive.into());
    docker
        .upload_to_container(NAME, Some(options), body)
        .await?;
    assert!(
        docker
            .container_changes(NAME)
            .await?
            .is_some_and(|changes| !changes.is_empty())
    );
    Ok(())
}

async fn networks(docker: &Docker) -> Outcome {
    let connect = NetworkConnectRequest {
        container: NAME.to_owned(),
        ..Default::default()
    };
    docker.connect_network("between", connect).await?;
    let network = docker
        .inspect_network("between", None::<InspectNetworkOptions>)
        .await?;
    assert_eq!(network.containers.map(|members| members.len()), Some(1));
    assert_eq!(
        docker
            .list_networks(None::<ListNetworksOptions>)
            .await?
            .len(),
        4
    );
    let listed = docker.list_volumes(None::<ListVolumesOptions>).await?;
    assert_eq!(listed.volumes.map(|list| list.len()), Some(1));
    Ok(())
}

async fn end(docker: &Docker) -> Outcome {
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .build();
    let mut lines: Vec<LogOutput> = docker.logs(NAME, Some(options)).try_collect().await?;
    lines.sort_by_key(|line| matches!(line, LogOutput::StdErr { .. }));
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["out\n", "err\n"]);
    docker.pause_container(NAME).await?;
    docker.unpause_container(NAME).await?;
    docker
        .stop_container(NAME, None::<StopContainerOptions>)
        .await?;
    let waited: Outcome<Vec<_>> = docker
        .wait_container(NAME, None::<WaitContainerOptions>)
        .try_collect()
        .await;
    assert!(
        matches!(
            waited,
            Err(bollard::errors::Error::DockerContainerWaitError { code: 7, .. })
        ),
        "{waited:?}"
    );
    Ok(())
}

async fn remove(docker: &Docker, image: &str) -> Outcome {
    let options = RemoveContainerOptionsBuilder::default().v(true).build();
    docker.remove_container(NAME, Some(options)).await?;
    docker.remove_network("between").await?;
    docker
        .remove_volume("kept", None::<RemoveVolumeOptions>)
        .await?;
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    docker.remove_image(image, Some(options), None).await?;
    Ok(())
}

async fn system(docker: &Docker) -> Outcome {
    assert_eq!(docker.ping().await?, "OK");
    let (version, info) = (docker.version().await?, docker.info().await?);
    assert_eq!(version.os.as_deref(), Some("linux"));
    assert_eq!(info.containers_running, Some(1));
    docker.df(None::<DataUsageOptions>).await?;
    Ok(())
}

/// Names of what happened to containers until now.
async fn events(docker: &Docker) -> Outcome<Vec<String>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = (now.expect("after 1970").as_secs() + 1).to_string();
    let filters = HashMap::from([("type", vec!["container"]), ("container", vec![NAME])]);
    let options = EventsOptionsBuilder::default()
        .since("0")
        .until(&until)
        .filters(&filters)
        .build();
    let told: Vec<_> = docker.events(Some(options)).try_collect().await?;
    Ok(told.into_iter().filter_map(|event| event.action).collect())
}

async fn scenario(docker: Docker, image: &str) -> Outcome {
    let docker = docker.negotiate_version().await?;
    images(&docker, image).await?;
    let id = create(&docker, image).await?;
    docker
        .start_container(NAME, None::<StartContainerOptions>)
        .await?;
    look(&docker, &id).await?;
    exec(&docker).await?;
    files(&docker).await?;
    networks(&docker).await?;
    system(&docker).await?;
    end(&docker).await?;
    remove(&docker, image).await?;
    let told = events(&docker).await?;
    for action in [
        "create", "start", "pause", "unpause", "kill", "die", "stop", "destroy",
    ] {
        assert!(told.iter().any(|one| one == action), "{action}: {told:?}");
    }
    let unknown = docker
        .inspect_container(NAME, None::<InspectContainerOptions>)
        .await;
    let bollard::errors::Error::DockerResponseServerError {
        status_code,
        message,
    } = unknown.expect_err("gone")
    else {
        panic!("not the engine's answer");
    };
    assert_eq!(
        (status_code, message.as_str()),
        (404, "No such container: driven")
    );
    Ok(())
}

#[test]
fn bollard() {
    let registry = Registry::start();
    registry.push("busybox");
    let (host, vm) = (registry.host(), registry.instance());
    let docker =
        Docker::connect_with_unix(&vm.docker_host(), 120, API_DEFAULT_VERSION).expect("a socket");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime
        .block_on(scenario(docker, &format!("{host}/busybox:1")))
        .expect("bollard");
    assert_eq!(vm.docker(&["ps", "-aq"]), "");
}
