//! The least that a handler needs: answer requests in the queue group `q`, with a body or with an error header.

use async_nats::{HeaderMap, Message};
use base64::{engine::general_purpose::STANDARD, Engine};
use futures_util::StreamExt;
use serde_json::{json, Value};

#[tokio::main]
async fn main() -> Result<(), async_nats::Error> {
    let url = std::env::var("NATS_URL").unwrap_or("127.0.0.1:4222".to_owned());
    let client = async_nats::connect(url).await?;
    let mut requests = client.queue_subscribe("CHORIA_AJ.H.T.email:new", "q".to_owned()).await?;
    client.request(client.new_inbox(), "".into()).await.ok(); // answered: the server knows the subscription
    println!("ready");
    while let Some(request) = requests.next().await {
        let client = client.clone();
        tokio::spawn(async move {
            let Some(reply) = request.reply.clone() else { return Ok(()) };
            match handle(&request) {
                Ok(result) => client.publish(reply, result.to_string().into()).await,
                Err((header, text)) => {
                    let headers = HeaderMap::from_iter([(header.parse().unwrap(), text.parse().unwrap())]);
                    client.publish_with_headers(reply, headers, "".into()).await
                }
            }
        });
    }
    Ok(())
}

fn handle(request: &Message) -> Result<Value, (&'static str, &'static str)> {
    let task: Value = serde_json::from_slice(&request.payload).unwrap_or_default();
    let payload = STANDARD.decode(task["payload"].as_str().unwrap_or_default()).unwrap_or_default(); // it is base64
    let email: Value = serde_json::from_slice(&payload).unwrap_or_default();
    match email["to"].as_str() {
        None => Err(("AJ-Terminate", "no address")), // no further try can mend it
        Some("nobody@example.net") => Err(("AJ-Error", "no such mailbox")), // to be tried again
        Some(to) => Ok(json!({"sent": to})),         // the result
    }
}
