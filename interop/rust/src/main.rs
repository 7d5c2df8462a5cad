//! A complete job handler in Rust: the official NATS client and this folder, nothing else.
//!
//! The bridge sends each task as an ordinary NATS request and takes the reply as its outcome:
//!
//! - a body, no header: complete; the body is the result, stored byte for byte (it may be empty)
//! - header AJ-Error: failed, to be tried again; people will read the text in the task
//! - header AJ-Terminate: failed for good, no more tries
//! - no reply in time: a failed try as well, but a slow one that tells nobody why
//!
//! This file is the process: connection, queue group, orderly stop. call.rs is one request: deadline, heartbeats,
//! progress, cancelling, reply headers; discovery.rs is what `nats micro ls` finds. Copy them as they are; the job itself
//! is in work.rs.

mod call;
mod discovery;
mod work;

use std::env;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{ClientError, ConnectOptions, Event, ServerAddr, ServerError};
use call::Calls;
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

static READY: AtomicBool = AtomicBool::new(false);
static REFUSALS: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() {
    if let Err(err) = run().await {
        eprintln!("{err}");
        exit(1);
    }
}

async fn run() -> Result<(), async_nats::Error> {
    let task_type = env::var("AJ_TYPE").unwrap_or("email:new".to_owned());
    let token = if task_type.is_empty() { "catchall" } else { &task_type };
    let subject = setting("AJ_SUBJECT", &format!("CHORIA_AJ.H.T.{token}"));
    let group = setting("AJ_QUEUE_GROUP", "q");
    let url = setting("NATS_URL", "nats://127.0.0.1:4222");
    let servers = url.split(',').map(str::parse).collect::<Result<Vec<ServerAddr>, _>>()?;

    // Wait for a server that is not there yet, come back for ever to one that went away, notice a dead link in about a
    // minute. Only a login that is refused twice ends the process, so that somebody sees it.
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| Duration::from_millis(if attempts < 2 { 0 } else { 500 }))
        .ping_interval(Duration::from_secs(20))
        .event_callback(|event| async move { heed(&event) });
    let client = login(options, &servers[0]).connect(servers).await?;

    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);

    // The queue group shares the work: each request goes to one of all the responders in the group.
    let mut requests = client.queue_subscribe(subject.clone(), group.clone()).await?;
    // One subscription hears of all calls that are not wanted any more; each knows its own subject.
    let mut cancels = client.subscribe("CHORIA_AJ.CI.*").await?;
    let calls = Arc::new(Calls::default());
    let running = calls.clone();
    let mut others = JoinSet::new();
    others.spawn(async move {
        while let Some(message) = cancels.next().await {
            running.cancel(&message.subject);
        }
    });
    discovery::register(&client, &task_type, &subject, &group, calls.clone(), &mut others).await?;
    // The answer to a request that nobody listens to tells that the server has seen all of this.
    tokio::select! {
        _ = async { client.flush().await.ok(); client.request(client.new_inbox(), "".into()).await.ok() } => {}
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    }
    READY.store(true, Ordering::Relaxed);
    println!("ready {subject}");

    let slots = Arc::new(Semaphore::new(64)); // worked on at once
    let mut in_hand = JoinSet::new();
    let mut stopping = false;
    let mut drained_by = Instant::now();
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request else { break };
                let (client, calls, slots, arrived) = (client.clone(), calls.clone(), slots.clone(), Instant::now());
                // Not awaited: the next request must not wait for this one.
                in_hand.spawn(async move {
                    let _slot = slots.acquire().await;
                    call::answer(client, calls, request, arrived).await;
                });
            }
            Some(_) = in_hand.join_next() => {}
            // Stop in order: take nothing new, finish what is in hand, push the replies out. A second signal kills.
            _ = async { tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} } } => {
                if stopping { exit(130) }
                stopping = true;
                drained_by = Instant::now() + Duration::from_secs(5);
                requests.drain().await?;
            }
            // Without a server nothing comes in, and nobody says that it is over.
            _ = tokio::time::sleep_until(drained_by.into()), if stopping => break,
        }
    }
    if !stopping {
        return Err("connection closed".into());
    }
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => exit(130), _ = int.recv() => exit(130) }
    });
    while in_hand.join_next().await.is_some() {}
    if !matches!(timeout(Duration::from_secs(1), client.flush()).await, Ok(Ok(()))) {
        eprintln!("the last replies may not have left: no server");
    }
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// This client takes no login from the URL, so we do.
fn login(options: ConnectOptions, server: &ServerAddr) -> ConnectOptions {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match (server.username().map(decoded), server.password().map(decoded)) {
        (Some(user), Some(password)) => options.user_and_password(user, password),
        (Some(token), None) => options.token(token),
        _ => options,
    }
}

/// Ends the process where going on would help nobody.
fn heed(event: &Event) {
    match event {
        Event::ClientError(ClientError::Other(text)) if text.contains("authorization violation") => {
            if REFUSALS.fetch_add(1, Ordering::Relaxed) > 0 {
                eprintln!("not connected: {text}");
                exit(1);
            }
        }
        Event::Connected => REFUSALS.store(0, Ordering::Relaxed),
        Event::ServerError(ServerError::Other(text)) => {
            eprintln!("the server says: {text}");
            // A refused subscription; later it can only be a reply, and its task will be tried again.
            if !READY.load(Ordering::Relaxed) {
                exit(1);
            }
        }
        _ => {}
    }
}
