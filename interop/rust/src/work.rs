use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::call::{Call, Failure, Outcome};

/// Yours to write. Return the result or a failure. This one does what the payload says, so that tests can ask for each
/// outcome (docs/conformance.md has them all): `{"do": "fail", "error": "no such mailbox"}`. A payload that gives no order it
/// knows is a success.
pub async fn work(call: &Call) -> Outcome {
    let order = read_order(&call.task.payload)?;
    let text = match &order["error"] {
        Value::Null => "failed".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // As long as a timer of any language can be.
    let number = |name: &str| order[name].as_f64().unwrap_or(0.0).clamp(0.0, f64::from(i32::MAX)) as u64;
    let pause = Duration::from_millis(number("ms"));
    match order["do"].as_str().unwrap_or_default() {
        "fail" => return Err(Failure::Error(text)),
        "fail_once" if call.attempt == 1 => return Err(Failure::Error(text)),
        "retry_after" if call.attempt == 1 => return Err(Failure::RetryAfter(text, pause)),
        "unicode_error" => return Err(Failure::Error("dépassé ☃ 😀".to_owned())), // header text is UTF-8
        "terminate" => return Err(Failure::Terminate(text)),
        "both" => {
            call.header("AJ-Error", "not this one");
            return Err(Failure::Terminate(text));
        }
        "case" => {
            call.header("aj-error", &text);
            return Ok(Vec::new());
        }
        "crash" => std::process::exit(1),
        "empty" => return Ok(Vec::new()),
        "big" => return Ok(vec![b'x'; number("bytes") as usize]),
        "echo" => return Ok(call.task.payload.clone()),
        "binary" => return Ok((0..=255).collect()),
        // At the deadline this is dropped, and the answer is still heard: the bridge waits a little longer than it says.
        "sleep" => tokio::time::sleep(pause).await,
        "cancel" => std::future::pending().await,
        // What blocks its thread is not dropped.
        "late" => tokio::task::block_in_place(|| std::thread::sleep(call.left() + pause)),
        "heartbeat" => {
            let end = Instant::now() + pause;
            while Instant::now() < end {
                call.heartbeat().await;
                tokio::time::sleep(Duration::from_millis(number("every_ms").max(1))).await;
            }
        }
        "progress" => {
            let steps = number("steps").max(1);
            for step in 1..=steps {
                tokio::time::sleep(pause).await;
                call.progress(step as f64 / steps as f64, &format!("step {step} of {steps}")).await;
            }
        }
        "headers" => {
            let seen: HashMap<&str, &str> = call
                .asked
                .iter()
                .filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())))
                .collect();
            let (id, task_type, tries) = (&call.task.id, &call.task.task_type, call.task.tries);
            return Ok(json!({"headers": seen, "id": id, "type": task_type, "tries": tries}).to_string().into());
        }
        "deadline" => {
            let seen = json!({
                "deadline": call.asked("AJ-Handler-Deadline"),
                "timeout_ms": call.asked("AJ-Handler-Timeout-Ms").and_then(|ms| ms.parse::<u64>().ok()),
                "content_type": call.asked("AJ-Content-Type"),
                "protocol": call.asked("AJ-Protocol"),
                "invocation": call.asked("AJ-Invocation"),
            });
            return Ok(seen.to_string().into());
        }
        _ => {}
    }
    Ok(json!({"handler": "rust", "id": call.task.id, "try": call.attempt}).to_string().into())
}

fn read_order(payload: &[u8]) -> Result<Value, Failure> {
    if payload.is_empty() {
        return Ok(Value::Null);
    }
    match serde_json::from_slice(payload) {
        Ok(order @ (Value::Object(_) | Value::Null)) => Ok(order),
        Ok(_) => Err(Failure::Terminate("payload is not a JSON object".to_owned())),
        Err(err) => Err(Failure::Terminate(format!("payload is not a JSON object: {err}"))),
    }
}
