//! `liftwatch pki`: a small certificate authority in a folder, so that a pilot has real TLS in a minute.
//!
//! The server never needs this folder's `ca.key`: it reads `server.pem`, `server.key`, `ca.pem` and `crl.pem`.

mod authority;
mod files;

use std::path::Path;

use crate::cli::PkiCommand;
use authority::{Authority, Issued};

/// Runs one of the commands.
pub(crate) fn run(command: PkiCommand) -> anyhow::Result<()> {
    let now = time::OffsetDateTime::now_utc();
    match command {
        PkiCommand::Init { folder, hosts, name, days, server_days } => {
            let mut authority = Authority::create(&folder.dir, &name, days, now)?;
            authority.issue_server(&all_hosts(&hosts), server_days, now)?;
            told(&folder.dir);
        }
        PkiCommand::Issue { ids, folder, days, renew } => {
            let mut authority = Authority::open(&folder.dir)?;
            for id in &ids {
                let issued = authority.issue_terminal(id.as_str(), days, renew, now)?;
                let (certificate, key) = authority.terminal_files(id.as_str());
                eprintln!("{id}: {}, {}, until {}", certificate.display(), key.display(), issued.expires);
            }
            let id = &ids[0];
            eprintln!(
                "the terminal must be registered too: liftwatch terminal add {id} --area 350102 --no-secret"
            );
        }
        PkiCommand::Server { folder, hosts, days } => {
            let mut authority = Authority::open(&folder.dir)?;
            let issued = authority.issue_server(&all_hosts(&hosts), days, now)?;
            eprintln!("server.pem and server.key are new, until {}", issued.expires);
        }
        PkiCommand::Revoke { ids, serial, folder } => {
            let mut authority = Authority::open(&folder.dir)?;
            let ids: Vec<&str> = ids.iter().map(domain::TerminalId::as_str).collect();
            let count = authority.revoke(&ids, serial.as_deref(), now)?;
            eprintln!("{count} revoked; give the server the new {}", folder.dir.join("crl.pem").display());
        }
        PkiCommand::List { folder, json } => {
            for issued in Authority::open(&folder.dir)?.issued() {
                match json {
                    true => println!("{}", serde_json::to_string(issued)?),
                    false => println!("{}", as_line(issued, now)),
                }
            }
        }
    }
    Ok(())
}

/// Those named, and this machine by its own names.
fn all_hosts(named: &[String]) -> Vec<String> {
    let mut hosts = named.to_vec();
    for own in ["localhost", "127.0.0.1", "::1"] {
        if !hosts.iter().any(|host| host == own) {
            hosts.push(own.to_owned());
        }
    }
    hosts
}

/// What to do next, ready to paste.
fn told(folder: &Path) {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let shown = folder.display();
    eprintln!("the authority is in {shown}; keep ca.key secret. For the configuration:");
    println!(
        "[broker]\ntls_listen = \"0.0.0.0:8883\"\n\n[broker.tls]\ncertificate = \"{shown}/server.pem\"\n\
         key = \"{shown}/server.key\"\nclient_ca = \"{shown}/ca.pem\"\ncrl = \"{shown}/crl.pem\"\n\
         client_certificates = \"optional\""
    );
    eprintln!("then: liftwatch pki issue t1 && liftwatch terminal add t1 --area 350102 --no-secret");
}

fn as_line(issued: &Issued, now: time::OffsetDateTime) -> String {
    let state = match &issued.revoked {
        Some(at) => format!("revoked {at}"),
        None if issued.expires < now.into() => format!("expired {}", issued.expires),
        None => format!("valid until {}", issued.expires),
    };
    format!("{:<32} {:<8} {:<24} {state}", issued.serial, issued.purpose.as_str(), issued.name)
}
