//! A container's output through pipes to file and readers, as shim and daemon use it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use longshore_container_log::{
    AttachClient, AttachEvent, AttachOptions, Driver, LogConfig, LogReader, LogTask, ReadOptions,
    StreamKind, Tail,
};

fn start(config: &LogConfig) -> (LogTask, std::fs::File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut task = LogTask::start(config).unwrap();
    task.pump(StreamKind::Stdout, reader).unwrap();
    let writer: OwnedFd = writer;
    (task, writer.into())
}

async fn end(mut task: LogTask) {
    task.ended().await;
    task.finish(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_sees_each_line_once_over_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = LogConfig::new("c", dir.path());
    (config.max_size, config.max_files) = (4096, 100);
    let (task, mut writer) = start(&config);
    let mut lines = LogReader::new(&config)
        .read(ReadOptions {
            follow: true,
            ..Default::default()
        })
        .await
        .unwrap();
    let writing = std::thread::spawn(move || {
        for number in 0..3000 {
            writeln!(writer, "line {number}").unwrap();
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let ending = tokio::spawn(end(task));
    let mut number = 0;
    while let Some(line) = lines.next().await.unwrap() {
        assert_eq!(line.bytes, format!("line {number}\n").as_bytes());
        number += 1;
    }
    assert_eq!(number, 3000);
    writing.join().unwrap();
    ending.await.unwrap();
    let mut tail = LogReader::new(&config)
        .read(ReadOptions {
            tail: Tail::Last(2),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(
        &tail.next().await.unwrap().unwrap().bytes[..],
        b"line 2998\n"
    );
    assert_eq!(
        &tail.next().await.unwrap().unwrap().bytes[..],
        b"line 2999\n"
    );
    assert_eq!(tail.next().await.unwrap(), None);
    assert!(!config.attach_path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_attached_reader_gets_every_byte_without_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = LogConfig::new("c", dir.path());
    config.driver = Driver::None;
    let (task, mut writer) = start(&config);
    let mut client = AttachClient::connect(&config.dir, AttachOptions::default())
        .await
        .unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&[7; 3 << 20]).unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !writing.is_finished(),
        "the writer must wait for its reader"
    );
    let ending = tokio::spawn(end(task));
    let mut seen = 0;
    while let Some(event) = client.next().await.unwrap() {
        match event {
            AttachEvent::Output(StreamKind::Stdout, bytes) => seen += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, 3 << 20);
    assert_eq!(client.cursor(), seen as u64);
    writing.join().unwrap();
    ending.await.unwrap();
    assert!(!config.log_path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_frees_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig::new("c", dir.path());
    let (task, mut writer) = start(&config);
    let client = AttachClient::connect(&config.dir, AttachOptions::default())
        .await
        .unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&[b'x'; 3 << 20]).unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(client);
    end(task).await;
    writing.join().unwrap();
}
