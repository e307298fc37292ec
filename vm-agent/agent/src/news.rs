//! Published ports: the guest's wishes, carried to the host over its one connection for them.
//!
//! ```text
//! publish ──► wanted ──(host connected)──► asked ──► bound: kept in the set, or refused: told and forgotten
//! ```
//! The set is a file, so that neither a restarted agent nor a restarted host forgets a port that a container relies on.

use crate::channel::Stream;
use crate::config::write_whole;
use longshore_protocol::VERSION;
use longshore_protocol::line::{read_json, write_json};
use longshore_protocol::port_news::{News as Message, NewsLine, NewsReply, Publication, Published};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::sync::{mpsc, oneshot};

const FILE: &str = "/run/longshore/ports.json";
/// How long a publication waits for the host to be there and to answer.
const DEADLINE: Duration = Duration::from_secs(15);
const QUEUE: usize = 256;

/// A handle to the task that owns the set.
#[derive(Clone)]
pub struct News(mpsc::Sender<Event>);

enum Event {
    Publish(Publication, oneshot::Sender<Published>),
    Withdraw(String),
    Retain(Vec<String>),
    List(oneshot::Sender<Vec<Publication>>),
    Connected {
        lines: mpsc::Sender<NewsLine>,
        generation: oneshot::Sender<u64>,
    },
    Reply {
        generation: u64,
        reply: NewsReply,
    },
    Gone {
        generation: u64,
    },
}

/// A question to the host that is not answered yet.
enum Asked {
    Publish(Publication, oneshot::Sender<Published>),
    Sync(Vec<String>),
    Withdraw,
}

struct Host {
    lines: mpsc::Sender<NewsLine>,
    next_id: u64,
    asked: HashMap<u64, Asked>,
}

struct Owner {
    set: BTreeMap<String, Publication>,
    waiting: Vec<(Publication, oneshot::Sender<Published>)>,
    host: Option<Host>,
    generation: u64,
    file: String,
}

impl News {
    pub fn start() -> Self {
        Self::start_with(FILE.into())
    }

    fn start_with(file: String) -> Self {
        let (events, mut incoming) = mpsc::channel(QUEUE);
        let mut owner = Owner {
            set: load(&file),
            waiting: Vec::new(),
            host: None,
            generation: 0,
            file,
        };
        tokio::spawn(async move {
            while let Some(event) = incoming.recv().await {
                owner.handle(event);
            }
        });
        Self(events)
    }

    pub async fn publish(&self, publication: Publication) -> Published {
        let key = publication.key.clone();
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Event::Publish(publication, answer)).await;
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(published)) => published,
            Ok(Err(_)) => {
                Published::Error("the host went away while it was asked for the port".into())
            }
            Err(_) => {
                self.withdraw(key).await;
                Published::Error("the host does not answer, so the port cannot be published".into())
            }
        }
    }

    pub async fn withdraw(&self, key: String) {
        let _ = self.0.send(Event::Withdraw(key)).await;
    }

    pub async fn retain(&self, keys: Vec<String>) {
        let _ = self.0.send(Event::Retain(keys)).await;
    }

    pub async fn publications(&self) -> Vec<Publication> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Event::List(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Serves the host's connection until it ends or another replaces it.
    pub async fn host_connected(&self, stream: impl Stream) {
        let (lines, mut outgoing) = mpsc::channel::<NewsLine>(QUEUE);
        let (tell, told) = oneshot::channel();
        let _ = self
            .0
            .send(Event::Connected {
                lines,
                generation: tell,
            })
            .await;
        let Ok(generation) = told.await else { return };
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let read = async {
            while let Ok(Some(reply)) = read_json::<NewsReply, _>(&mut reader).await {
                let _ = self.0.send(Event::Reply { generation, reply }).await;
            }
        };
        let write = async {
            // Ends when the owner has another host.
            while let Some(line) = outgoing.recv().await {
                if write_json(&mut writer, &line).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
        let _ = self.0.send(Event::Gone { generation }).await;
    }
}

impl Owner {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Publish(publication, answer) => self.publish(publication, answer),
            Event::Withdraw(key) => self.withdraw(&key),
            Event::Retain(keys) => {
                let stale: Vec<String> = self
                    .set
                    .keys()
                    .filter(|key| !keys.contains(key))
                    .cloned()
                    .collect();
                stale.iter().for_each(|key| self.withdraw(key));
            }
            Event::List(answer) => drop(answer.send(self.set.values().cloned().collect())),
            Event::Connected { lines, generation } => self.connected(lines, generation),
            Event::Reply { generation, reply } if generation == self.generation => {
                self.reply(reply)
            }
            Event::Gone { generation } if generation == self.generation => self.host = None,
            Event::Reply { .. } | Event::Gone { .. } => {}
        }
    }

    fn connected(&mut self, lines: mpsc::Sender<NewsLine>, tell: oneshot::Sender<u64>) {
        self.generation += 1;
        // What was asked of the host before is answered by nobody: those who wait are told so by the dropped sender.
        self.host = Some(Host {
            lines,
            next_id: 1,
            asked: HashMap::new(),
        });
        let _ = tell.send(self.generation);
        let all: Vec<Publication> = self.set.values().cloned().collect();
        let keys = self.set.keys().cloned().collect();
        self.ask(Message::Sync(all), Asked::Sync(keys));
        for (publication, answer) in std::mem::take(&mut self.waiting) {
            self.publish(publication, answer);
        }
    }

    fn publish(&mut self, publication: Publication, answer: oneshot::Sender<Published>) {
        if self.host.is_none() {
            self.waiting.push((publication, answer));
            return;
        }
        self.ask(
            Message::Publish(publication.clone()),
            Asked::Publish(publication, answer),
        );
    }

    fn withdraw(&mut self, key: &str) {
        self.waiting
            .retain(|(publication, _)| publication.key != key);
        if self.set.remove(key).is_some() {
            self.save();
        }
        self.ask(Message::Withdraw { key: key.into() }, Asked::Withdraw);
    }

    fn ask(&mut self, news: Message, asked: Asked) {
        let Some(host) = &mut self.host else { return };
        let id = host.next_id;
        host.next_id += 1;
        if host
            .lines
            .try_send(NewsLine {
                version: VERSION,
                id,
                news,
            })
            .is_ok()
        {
            host.asked.insert(id, asked);
        } else {
            // A host that takes nothing is as good as gone; the next one gets the whole set.
            self.host = None;
        }
    }

    fn reply(&mut self, reply: NewsReply) {
        let asked = self
            .host
            .as_mut()
            .and_then(|host| host.asked.remove(&reply.id));
        match asked {
            Some(Asked::Publish(mut publication, answer)) => {
                let result = reply.results.into_iter().next();
                let result =
                    result.unwrap_or_else(|| Published::Error("the host gave no answer".into()));
                if let Published::Bound(address) = &result {
                    publication.host_port = address.port();
                    let key = publication.key.clone();
                    self.set.insert(key.clone(), publication);
                    self.save();
                    // The one who asked has given up: nobody would ever withdraw it.
                    if answer.send(result).is_err() {
                        self.withdraw(&key);
                    }
                } else {
                    let _ = answer.send(result);
                }
            }
            Some(Asked::Sync(keys)) => {
                for (key, result) in keys.iter().zip(reply.results) {
                    if let Published::Error(error) = result {
                        tracing::error!("the host could not publish {key} again: {error}");
                    }
                }
            }
            Some(Asked::Withdraw) | None => {}
        }
    }

    fn save(&self) {
        let list: Vec<&Publication> = self.set.values().collect();
        let saved = serde_json::to_vec(&list)
            .map_err(Into::into)
            .and_then(|text| write_whole(&self.file, &text));
        if let Err(error) = saved {
            tracing::error!("keep the published ports in {}: {error}", self.file);
        }
    }
}

fn load(file: &str) -> BTreeMap<String, Publication> {
    let list: Vec<Publication> = std::fs::read(file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    list.into_iter()
        .map(|publication| (publication.key.clone(), publication))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_protocol::dial::Proto;
    use tokio::io::DuplexStream;

    fn publication(key: &str) -> Publication {
        Publication {
            key: key.into(),
            container_id: "c".into(),
            proto: Proto::Tcp,
            host_ip: String::new(),
            host_port: 0,
            target: "172.17.0.2:80".parse().unwrap(),
        }
    }

    fn connect(news: &News) -> BufReader<DuplexStream> {
        let (host, guest) = tokio::io::duplex(100_000);
        let news = news.clone();
        tokio::spawn(async move { news.host_connected(guest).await });
        BufReader::new(host)
    }

    async fn next(host: &mut BufReader<DuplexStream>) -> NewsLine {
        read_json(host).await.unwrap().unwrap()
    }

    async fn answer(host: &mut BufReader<DuplexStream>, id: u64, results: Vec<Published>) {
        write_json(
            host,
            &NewsReply {
                version: VERSION,
                id,
                results,
            },
        )
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_port_survives_host_and_agent() {
        let file = std::env::temp_dir().join(format!("longshore-ports-{}", std::process::id()));
        let path = file.to_string_lossy().into_owned();
        let news = News::start_with(path.clone());
        // Asked for before the host is there: it waits.
        let asking = tokio::spawn({
            let news = news.clone();
            async move { news.publish(publication("web")).await }
        });
        tokio::task::yield_now().await;
        let mut host = connect(&news);
        assert_eq!(next(&mut host).await.news, Message::Sync(vec![]));
        let line = next(&mut host).await;
        assert_eq!(line.news, Message::Publish(publication("web")));
        let bound = Published::Bound("127.0.0.1:32768".parse().unwrap());
        answer(&mut host, line.id, vec![bound.clone()]).await;
        assert_eq!(asking.await.unwrap(), bound);

        // A new agent and a new host learn the port that was promised.
        let news = News::start_with(path);
        let mut host = connect(&news);
        let promised = Publication {
            host_port: 32768,
            ..publication("web")
        };
        assert_eq!(next(&mut host).await.news, Message::Sync(vec![promised]));

        // A refusal is told and forgotten.
        let asking = tokio::spawn({
            let news = news.clone();
            async move { news.publish(publication("other")).await }
        });
        let line = next(&mut host).await;
        answer(&mut host, line.id, vec![Published::Error("taken".into())]).await;
        assert_eq!(asking.await.unwrap(), Published::Error("taken".into()));
        assert_eq!(news.publications().await.len(), 1);

        news.retain(vec![]).await;
        assert_eq!(
            next(&mut host).await.news,
            Message::Withdraw { key: "web".into() }
        );
        assert_eq!(news.publications().await, []);
        std::fs::remove_file(file).unwrap();
    }
}
