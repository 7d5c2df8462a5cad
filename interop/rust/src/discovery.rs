//! What `nats micro ls` finds: the answers of a NATS micro service to `$SRV`.
//!
//! The client has a service object (its feature `service`), but that one leaves its subject without taking what is on
//! its way, so we answer for ourselves; the figures are then those of the whole call, too. A service and its endpoints
//! may not be named `email:new`, so the type stands in the metadata.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::{Client, Error};
use futures_util::{stream::select_all, StreamExt};
use serde_json::{json, Value};
use tokio::task::JoinSet;

use crate::call::Calls;

const NAME: &str = "aj-handler";

/// What was done since the start.
#[derive(Default)]
pub struct Figures {
    pub in_flight: u64,
    requests: u64,
    errors: u64,
    last_error: String,
    time: Duration,
}

impl Figures {
    pub fn answered(&mut self, took: Duration) {
        self.in_flight -= 1;
        self.requests += 1;
        self.time += took;
    }

    pub fn failed(&mut self, text: String) {
        self.errors += 1;
        self.last_error = text;
    }
}

/// Answers `$SRV` for as long as the process lives.
pub async fn register(
    client: &Client,
    task_type: &str,
    subject: &str,
    group: &str,
    calls: Arc<Calls>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let id = client.new_inbox().replace("_INBOX.", "").replace('.', "-");
    let endpoint = json!({"name": "run", "subject": subject, "queue_group": group, "metadata": {"aj.type": task_type}});
    let metadata = json!({"aj.language": "rust", "aj.client": "async-nats"});
    let who = json!({"name": NAME, "id": id, "version": "1.0.0", "metadata": metadata});
    let started = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let mut questions = Vec::new();
    for verb in ["PING", "INFO", "STATS"] {
        for whom in [format!("$SRV.{verb}"), format!("$SRV.{verb}.{NAME}"), format!("$SRV.{verb}.{NAME}.{id}")] {
            questions.push(client.subscribe(whom).await?);
        }
    }
    let client = client.clone();
    tasks.spawn(async move {
        let mut questions = select_all(questions);
        while let Some(question) = questions.next().await {
            let verb = question.subject.split('.').nth(1).unwrap_or_default();
            let mut answer = who.clone();
            answer["type"] = format!("io.nats.micro.v1.{}_response", verb.to_lowercase()).into();
            match verb {
                "INFO" => {
                    answer["description"] = "handles tasks".into();
                    answer["endpoints"] = json!([endpoint]);
                }
                "STATS" => {
                    answer["started"] = started.as_str().into();
                    answer["endpoints"] = json!([stats(&endpoint, &calls)]);
                }
                _ => {}
            }
            if let Some(reply) = question.reply {
                client.publish(reply, answer.to_string().into()).await.ok();
            }
        }
    });
    Ok(())
}

fn stats(endpoint: &Value, calls: &Calls) -> Value {
    let figures = calls.figures.lock().unwrap();
    let time = u64::try_from(figures.time.as_nanos()).unwrap_or(u64::MAX);
    json!({
        "name": endpoint["name"], "subject": endpoint["subject"], "queue_group": endpoint["queue_group"],
        "num_requests": figures.requests, "num_errors": figures.errors, "last_error": figures.last_error,
        "processing_time": time, "average_processing_time": time / figures.requests.max(1),
        "data": {"in_flight": figures.in_flight},
    })
}
