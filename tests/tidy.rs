//! Guards the invariants of ARCHITECTURE.md that a compiler does not see.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Rust files of a crate's `src`, with their text less comments, test modules at the end, and other items that are
/// compiled for tests alone, as far as these are one line.
fn sources(krate: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(krate).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("entry").path();
            if path.is_dir() && !path.ends_with("generated") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).expect("read");
                found.push((path, shipped(&text)));
            }
        }
    }
    assert!(!found.is_empty(), "{krate} has no sources");
    found
}

fn shipped(text: &str) -> String {
    let mut code = Vec::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push(line);
        } else if lines.next().is_some_and(|item| item.starts_with("mod ") && item.ends_with('{')) {
            break;
        }
    }
    code.join("\n")
}

#[test]
fn what_ships_is_all_but_tests() {
    let text =
        "use a;\n#[cfg(test)]\nmod tests;\n// no\nfn b() {}\n#[cfg(test)]\nmod more {\n    fn c() {}\n}";
    assert_eq!(shipped(text), "use a;\nfn b() {}");
}

const CRATES: [&str; 9] =
    ["alerting", "broker", "domain", "ingest", "proto", "server", "simulator", "store", "web"];

/// Panics with every file of `krates` that holds one of `words`.
fn forbid(krates: &[&str], words: &[&str], why: &str) {
    let mut seen = Vec::new();
    for krate in krates {
        for (path, code) in sources(krate) {
            for word in words.iter().filter(|word| code.contains(**word)) {
                seen.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(seen.is_empty(), "{why}:\n{}", seen.join("\n"));
}

fn all_but<'a>(exempt: &[&str]) -> Vec<&'a str> {
    CRATES.iter().copied().filter(|krate| !exempt.contains(krate)).collect()
}

#[test]
fn sql_lives_in_store() {
    forbid(
        &all_but(&["store"]),
        &[
            "use sqlx",
            "sqlx::query",
            "sqlx::raw_sql",
            "SELECT ",
            "INSERT INTO",
            "UPDATE ",
            "DELETE FROM",
            "COPY ",
        ],
        "all SQL lives in store",
    );
}

#[test]
fn mqtt_packets_stay_in_the_broker_and_the_simulator() {
    forbid(
        &all_but(&["broker", "simulator"]),
        &["rumqttc::", "rumqttd::", "mqttbytes"],
        "MQTT stays in broker",
    );
    forbid(&["broker"], &["domain::", "elevator", "Elevator"], "the broker knows nothing of elevators");
}

#[test]
fn protobuf_stays_in_proto_and_the_dispatch_api() {
    // The engine, the store and the pages speak in domain types.
    forbid(&["store", "web", "broker", "domain"], &["proto::", "prost::"], "protobuf types stay at the edge");
    forbid(&["ingest"], &["telemetry::v1", "dispatch::v1", "prost::"], "ingest sees decoded messages only");
}

#[test]
fn no_queue_without_a_bound() {
    forbid(&CRATES, &["unbounded_channel", "mpsc::channel()", "unbounded()"], "every queue has a size");
}

#[test]
fn the_core_reads_no_clock() {
    let clocks = ["SystemTime::now", "Instant::now", "now_utc(", "tokio::", "thread_rng", "rand::rng("];
    forbid(&["domain", "proto"], &clocks, "time and randomness come in as arguments");
    let mut seen = Vec::new();
    for (path, code) in sources("alerting") {
        let pure = path.components().any(|part| part.as_os_str() == "engine");
        for word in clocks.iter().filter(|word| pure && code.contains(**word)) {
            seen.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(seen.is_empty(), "the rules read no clock:\n{}", seen.join("\n"));
}

#[test]
fn only_the_server_reads_configuration_or_exits() {
    forbid(
        &all_but(&["server"]),
        &["process::exit", "figment::", "clap::"],
        "only server reads configuration or exits the process",
    );
    let mut seen = Vec::new();
    for krate in all_but(&["server"]) {
        let reads = |(path, code): &(PathBuf, String)| {
            // Where tests find their database.
            code.contains("env::var") && !path.ends_with("store/src/testing.rs")
        };
        seen.extend(sources(krate).into_iter().filter(reads).map(|(path, _)| path));
    }
    assert!(seen.is_empty(), "only server reads the environment: {seen:?}");
}

#[test]
fn imports_go_one_way() {
    // Crate, and what of ours it may import (DESIGN.md 10; tests of a crate may use more).
    let allowed: [(&str, &[&str]); 9] = [
        ("domain", &[]),
        ("broker", &[]),
        ("proto", &["domain"]),
        ("store", &["domain"]),
        ("alerting", &["store", "proto", "domain"]),
        ("ingest", &["store", "proto", "domain", "broker"]),
        ("web", &["store", "domain"]),
        ("simulator", &["proto", "domain"]),
        ("server", &CRATES),
    ];
    for (krate, may) in allowed {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("read");
        let dependencies = manifest
            .split("[dependencies]")
            .nth(1)
            .and_then(|rest| rest.split("\n[").next())
            .unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(!CRATES.contains(&name) || may.contains(&name), "{krate} must not import {name}");
        }
    }
}

#[test]
fn one_binary() {
    let binaries: Vec<_> = CRATES
        .iter()
        .filter(|krate| {
            root().join(krate).join("src/main.rs").exists() || root().join(krate).join("src/bin").exists()
        })
        .collect();
    assert_eq!(binaries, [&"server"]);
}
