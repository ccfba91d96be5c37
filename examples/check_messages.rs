//! Proves what a subscriber received: every message against its JSON Schema, every station's results gap-free.
//!
//! `mosquitto_sub -h BROKER -q 1 -t '#' -v | cargo run --example check_messages [-- --from 1]` reads lines `topic payload`; `--from` says which
//! number the results must begin with. Topics outside `.../ssds/...` and empty (clearing) payloads are passed over. Exit 0: all good, 1: not.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::process::ExitCode;

use serde_json::Value;
use ssds::schema;

/// One station's results.
#[derive(Default)]
struct Results {
    /// Number to event id.
    ids: BTreeMap<u64, String>,
    repeats: u64,
    verdicts: BTreeMap<String, u64>,
    boots: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let from = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => None,
        [flag, n] if flag == "--from" && n.parse::<u64>().is_ok() => n.parse().ok(),
        other => {
            eprintln!("check_messages: wanted nothing or --from NUMBER, got {other:?}");
            return ExitCode::from(64);
        }
    };
    let (mut kinds, mut stations, mut faults) = (BTreeMap::<&str, u64>::new(), BTreeMap::<String, Results>::new(), Vec::new());
    let mut validators = BTreeMap::new();
    for (name, text) in schema::ALL.map(|s| (s.name, s.text)) {
        let built = serde_json::from_str(text).map_err(|e| e.to_string()).and_then(|value: Value| {
            jsonschema::options().should_validate_formats(true).build(&value).map_err(|e| e.to_string())
        });
        match built {
            Ok(validator) => drop(validators.insert(name, validator)),
            Err(e) => {
                eprintln!("check_messages: schema {name}: {e}");
                return ExitCode::from(70);
            }
        }
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (topic, payload) = line.split_once(' ').unwrap_or((&line, ""));
        // mosquitto_sub -v writes an empty payload as "(null)".
        let Some((_, suffix)) = topic.split_once("ssds/").filter(|_| !matches!(payload, "" | "(null)")) else { continue };
        let Some(kind) = schema::find(suffix) else {
            faults.push(format!("{topic}: no such topic in the contract"));
            continue;
        };
        *kinds.entry(kind.name).or_default() += 1;
        let message: Value = match serde_json::from_str(payload) {
            Ok(message) => message,
            Err(e) => {
                faults.push(format!("{topic}: not JSON: {e}"));
                continue;
            }
        };
        faults.extend(validators[kind.name].iter_errors(&message).map(|e| format!("{topic}: {e} at {}", e.instance_path())));
        if kind.name == "inspection" {
            let word = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
            let station = stations.entry(word("station")).or_default();
            let seq = message["seq"].as_u64().unwrap_or_default();
            match station.ids.insert(seq, word("event_id")) {
                Some(before) if before != word("event_id") => faults.push(format!("{topic}: seq {seq} came with two event ids")),
                Some(_) => station.repeats += 1,
                None => {
                    *station.verdicts.entry(word("verdict")).or_default() += 1;
                    *station.boots.entry(word("boot_id")).or_default() += 1;
                }
            }
        }
    }
    for (name, r) in &stations {
        let (first, last) = (r.ids.keys().next().copied().unwrap_or(0), r.ids.keys().next_back().copied().unwrap_or(0));
        let missing = (from.unwrap_or(first)..=last).filter(|n| !r.ids.contains_key(n)).count();
        if missing > 0 || from.is_some_and(|f| first < f) {
            faults.push(format!("{name}: {missing} results missing from {} to {last}", from.unwrap_or(first)));
        }
        println!(
            "{name}: {} results, {first} to {last}, {missing} missing, {} repeats, verdicts {:?}, over {} boots",
            r.ids.len(),
            r.repeats,
            r.verdicts,
            r.boots.len()
        );
    }
    println!("messages valid against their schemas: {kinds:?}");
    for fault in &faults {
        println!("FAULT {fault}");
    }
    if stations.is_empty() {
        println!("FAULT no result came");
    }
    ExitCode::from(u8::from(!faults.is_empty() || stations.is_empty()))
}
