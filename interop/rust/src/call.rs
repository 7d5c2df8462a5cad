//! One call of the handler, from the request to the reply.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use async_nats::{Client, HeaderMap, Message, Subject};
use base64::{engine::general_purpose::STANDARD, Engine};
use futures_util::FutureExt;
use serde::{Deserialize, Deserializer};
use tokio::sync::Notify;

use crate::discovery::Figures;
use crate::work::work;

/// What this handler needs of the request's JSON. There are more keys, and new ones will come.
#[derive(Deserialize)]
pub struct Task {
    pub id: String,
    #[serde(default, rename = "type")]
    pub task_type: String,
    #[serde(default)]
    pub tries: u64, // counted before the call, so 1 the first time
    #[serde(default, deserialize_with = "from_base64")]
    pub payload: Vec<u8>,
}

fn from_base64<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(value)?.unwrap_or_default();
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// How a call fails.
pub enum Failure {
    /// A failed try; another follows.
    Error(String),
    /// A failed try, and when the next one shall be.
    RetryAfter(String, Duration),
    /// What no further try can mend.
    Terminate(String),
}

pub type Outcome = Result<Vec<u8>, Failure>;

/// The calls that run.
#[derive(Default)]
pub struct Calls {
    cancels: Mutex<HashMap<String, Arc<Notify>>>, // by their cancel subjects
    pub figures: Mutex<Figures>,
}

impl Calls {
    /// Ends a call whose reply will not be used.
    pub fn cancel(&self, subject: &str) {
        if let Some(call) = self.cancels.lock().unwrap().get(subject) {
            call.notify_one();
        }
    }
}

/// One call, as `work` sees it. When its deadline comes, or the bridge says that the reply will not be used, `work` is
/// dropped where it awaits; what blocks a thread must look at `left` itself.
pub struct Call {
    pub task: Task,
    pub attempt: u64,
    pub asked: HeaderMap,
    client: Client,
    reply: Subject,
    offered: bool, // interim replies
    timeout: Option<Duration>,
    deadline: Mutex<Instant>,
    extra: Mutex<HeaderMap>,
}

impl Call {
    /// A header of the request, whatever the case of its name.
    pub fn asked(&self, name: &str) -> Option<&str> {
        header(&self.asked, name)
    }

    /// Time until the reply must be in.
    pub fn left(&self) -> Duration {
        self.deadline.lock().unwrap().saturating_duration_since(Instant::now())
    }

    /// Tells how much is done, 0 to 1, and moves the deadline: there is the whole time again. The note may be empty. A
    /// caller that takes no interim replies is told nothing.
    pub async fn progress(&self, share: f64, note: &str) {
        let (true, Some(timeout)) = (self.offered, self.timeout) else { return };
        *self.deadline.lock().unwrap() = Instant::now() + timeout;
        let body = if note.is_empty() { String::new() } else { serde_json::json!({ "note": note }).to_string() };
        self.interim(&share.clamp(0.0, 1.0).to_string(), body).await;
    }

    /// Proves that we live, beside the heartbeats that are sent anyway.
    pub async fn heartbeat(&self) {
        if self.offered {
            self.interim("", String::new()).await;
        }
    }

    async fn interim(&self, share: &str, body: String) {
        let mut headers = HeaderMap::new();
        headers.insert("AJ-Progress", share);
        self.client.publish_with_headers(self.reply.clone(), headers, body.into()).await.ok();
    }

    /// A header of the reply beside those that a failure makes; you will hardly need it.
    pub fn header(&self, name: &str, value: &str) {
        self.extra.lock().unwrap().insert(name, value);
    }

    async fn out_of_time(&self) {
        loop {
            match self.left() {
                Duration::ZERO => return,
                left => tokio::time::sleep(left).await, // a sign of progress may have moved it meanwhile
            }
        }
    }
}

/// A header, whatever the case of its name.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.iter().filter(|(key, _)| AsRef::<str>::as_ref(*key).eq_ignore_ascii_case(name));
    all.find_map(|(_, values)| values.first()).map(async_nats::HeaderValue::as_str).filter(|text| !text.is_empty())
}

/// Lets `work` handle a request, and replies.
pub async fn answer(client: Client, calls: Arc<Calls>, request: Message, arrived: Instant) {
    let Some(reply) = request.reply else { return };
    let asked = request.headers.unwrap_or_default();
    // Of the two deadlines the relative one is better, as it needs no agreement about the time of day. A caller that
    // sends none is not the bridge.
    let timeout = header(&asked, "AJ-Handler-Timeout-Ms").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let deadline = timeout.map(|left| arrived + left).or_else(|| {
        let at = humantime::parse_rfc3339(header(&asked, "AJ-Handler-Deadline")?).ok()?;
        Some(Instant::now() + at.duration_since(SystemTime::now()).unwrap_or_default())
    });
    let every = header(&asked, "AJ-Heartbeat-Ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let cancel = Arc::new(Notify::new());
    let cancel_subject = header(&asked, "AJ-Cancel-Subject").map(str::to_owned);
    if let Some(subject) = &cancel_subject {
        calls.cancels.lock().unwrap().insert(subject.clone(), cancel.clone());
    }
    calls.figures.lock().unwrap().in_flight += 1;

    let protocol = header(&asked, "AJ-Protocol").is_some();
    let mut headers = HeaderMap::new();
    let mut outcome = match serde_json::from_slice::<Task>(&request.payload) {
        Ok(task) if !task.id.is_empty() => {
            let call = Call {
                // A Go worker does not send that header.
                attempt: header(&asked, "AJ-Task-Try").and_then(|text| text.parse().ok()).unwrap_or(task.tries),
                task,
                asked,
                client: client.clone(),
                reply: reply.clone(),
                offered: every > 0,
                timeout,
                deadline: Mutex::new(deadline.unwrap_or(arrived + Duration::from_secs(86_400))),
                extra: Mutex::default(),
            };
            let outcome = until_over(&call, every, &cancel).await;
            headers = call.extra.into_inner().unwrap();
            outcome
        }
        read => {
            let why = read.err().map_or("no id".to_owned(), |err| err.to_string());
            Err(Failure::Terminate(format!("request is not a task in JSON: {why}")))
        }
    };
    // It could not be sent now nor on any later try: say so, once.
    let limit = client.max_payload();
    if let Some(size) = outcome.as_ref().ok().map(Vec::len).filter(|size| *size > limit) {
        outcome = Err(Failure::Terminate(format!("result of {size} bytes, but max_payload is {limit}")));
    }
    if let Some(subject) = cancel_subject {
        calls.cancels.lock().unwrap().remove(&subject);
    }
    let body = outcome.unwrap_or_else(|failure| {
        calls.figures.lock().unwrap().failed(tell(failure, protocol, &mut headers));
        Vec::new()
    });
    calls.figures.lock().unwrap().answered(arrived.elapsed());
    let sent = if headers.is_empty() {
        client.publish(reply, body.into()).await
    } else {
        client.publish_with_headers(reply, headers, body.into()).await
    };
    if let Err(err) = sent {
        eprintln!("reply not sent, the task will be tried again: {err}");
    }
}

/// Works until there is an outcome, the deadline comes or nobody wants the reply; proves meanwhile that we live.
async fn until_over(call: &Call, every: u64, cancel: &Notify) -> Outcome {
    if call.left().is_zero() {
        // Too late to begin: the bridge has given up, and the next try may be running already.
        return Err(Failure::Error("deadline".to_owned()));
    }
    // One broken task must not take the others with it.
    let mut working = Box::pin(AssertUnwindSafe(work(call)).catch_unwind());
    let beat = Duration::from_millis(if every > 0 { every.div_ceil(2) } else { u64::from(u32::MAX) });
    // Twice as often as it is wanted. Only from then on, so that a short task costs no message more.
    let mut beats = tokio::time::interval_at((Instant::now() + beat).into(), beat);
    loop {
        tokio::select! {
            outcome = &mut working => {
                return outcome.unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    Err(Failure::Error(format!("panic: {}", text.unwrap_or_default())))
                });
            }
            _ = beats.tick(), if every > 0 => call.interim("", String::new()).await,
            _ = call.out_of_time() => return Err(Failure::Error("deadline".to_owned())),
            _ = cancel.notified() => return Err(Failure::Error("cancelled".to_owned())),
        }
    }
}

/// Sets the headers that tell of a failure, and returns its text.
fn tell(failure: Failure, protocol: bool, headers: &mut HeaderMap) -> String {
    let (name, text, delay) = match failure {
        Failure::Error(text) => ("AJ-Error", text, None),
        Failure::RetryAfter(text, delay) => ("AJ-Error", text, Some(delay)),
        Failure::Terminate(text) => ("AJ-Terminate", text, None),
    };
    // A header is one line, and not too long; a Go worker misreads an empty one.
    let text: String = text.replace(['\r', '\n', '\0'], " ").chars().take(4000).collect();
    let text = if text.is_empty() { "failed".to_owned() } else { text };
    headers.insert(name, text.as_str());
    if let (Some(delay), true) = (delay, protocol) {
        // Use our additions only where the request offers them.
        headers.insert("AJ-Retry-After-Ms", delay.as_millis().to_string());
    }
    text
}
