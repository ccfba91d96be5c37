//! `cmd/trigger` from the broker: inspects one part and answers with its recorded result.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};
use crate::pipeline::trigger::{Order, Reply, TriggerHandle};
use crate::publish::Command;
use crate::record::message::Reason;

/// Gives the trigger to the line; the command is answered when the result is recorded, refused when nothing comes of it.
pub(super) fn fire(handle: &TriggerHandle, command: Command) {
    let order = match order_of(&command.args, &command.request_id) {
        Ok(order) => order,
        Err(e) => return command.refuse(Reason::BadArguments, e.to_string()),
    };
    // Whoever comes first takes it: the recorded result, or the refusal below.
    let waiting = Arc::new(Mutex::new(Some(command)));
    let take = |slot: &Mutex<Option<Command>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let at_line = Arc::clone(&waiting);
    let reply = Reply::new(move |outcome| {
        if let Some(command) = take(&at_line) {
            command.done(json!(outcome));
        }
    });
    if let Err(e) = handle.fire(Order { reply: Some(reply), ..order })
        && let Some(command) = take(&waiting)
    {
        command.refuse(Reason::NotNow, e.to_string());
    }
}

/// The order that the command's arguments describe.
fn order_of(args: &Map<String, Value>, request_id: &str) -> Result<Order> {
    let wrong = |text: String| Err(Error::new(Kind::Usage, text));
    let mut order = Order { request_id: Some(request_id.into()), ..Order::from("mqtt") };
    for (name, value) in args {
        let text = match value {
            Value::Null => None,
            Value::String(text) => Some(Arc::from(text.as_str())),
            other => return wrong(format!("{name} must be a text, got {other}")),
        };
        match name.as_str() {
            "part_id" => order.part_id = text,
            "job_id" => order.job_id = text,
            other => return wrong(format!("trigger takes part_id and job_id, got {other}")),
        }
    }
    order.check()?;
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_an_order_or_a_refusal() {
        let of = |text: &str| order_of(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap(), "r1");
        let order = of(r#"{"part_id": "SN1", "job_id": null}"#).unwrap();
        assert_eq!(
            (order.from, order.part_id.as_deref(), order.job_id, order.request_id.as_deref()),
            ("mqtt", Some("SN1"), None, Some("r1"))
        );
        assert_eq!(of(r#"{"part_id": 7}"#).unwrap_err().to_string(), "part_id must be a text, got 7");
        assert_eq!(of(r#"{"part": "x"}"#).unwrap_err().to_string(), "trigger takes part_id and job_id, got part");
        assert!(of(r#"{"part_id": ""}"#).unwrap_err().to_string().starts_with("part_id must be 1 to 128 characters"));
    }
}
