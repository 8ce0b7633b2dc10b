//! `liftwatch account`: integrations that may read.

use store::{AccountRecord, NewAccount};

use crate::auth::secret::Strength;
use crate::cli::{AccountCommand, Region};
use crate::terminal::{Made, actor, explained, look, open};

/// Runs one of the commands.
pub(crate) async fn run(command: AccountCommand) -> anyhow::Result<()> {
    match command {
        AccountCommand::Add { name, areas, secret, config } => {
            // Hashed slowly also where we make it up: people copy passwords of accounts, and there are few.
            let made = Made::with(&secret, Strength::Chosen)?;
            let all = areas.contains(&Region::All);
            let areas = areas.into_iter().filter_map(|region| match region {
                Region::One(area) if !all => Some(area),
                _ => None,
            });
            let account = NewAccount { name: name.clone(), hash: made.hash.clone(), areas: areas.collect() };
            let database = open(&config).await?;
            let taken = database.terminal_show(&name).await.is_ok();
            anyhow::ensure!(!taken, "{name} is a terminal's id: choose another name");
            database.account_add(&account, &actor()).await.map_err(|error| explained(error, "account"))?;
            eprintln!("the account {name} sees {}", sees(&account.areas));
            made.tell(&format!("user name {name}, client id {name} or {name}-SOMETHING"));
        }
        AccountCommand::List { json, config } => {
            for account in look(&config).await?.account_list().await? {
                match json {
                    true => println!("{}", as_json(&account)),
                    false => println!(
                        "{:<32} {:<4} sees {}",
                        account.name,
                        if account.enabled { "on" } else { "off" },
                        sees(&account.areas)
                    ),
                }
            }
        }
        AccountCommand::Disable { name, config } => {
            let done = open(&config).await?.account_enable(&name, false, &actor()).await;
            done.map_err(|error| explained(error, "account"))?;
            eprintln!("switched off; open connections end now");
        }
        AccountCommand::Enable { name, config } => {
            let done = open(&config).await?.account_enable(&name, true, &actor()).await;
            done.map_err(|error| explained(error, "account"))?;
            eprintln!("switched on");
        }
        AccountCommand::Rotate { name, secret, config } => {
            let made = Made::with(&secret, Strength::Chosen)?;
            let done = open(&config).await?.account_rotate(&name, &made.hash, &actor()).await;
            done.map_err(|error| explained(error, "account"))?;
            eprintln!("the old password of {name} is worth nothing from now on");
            made.tell(&format!("user name {name}"));
        }
        AccountCommand::Remove { name, config } => {
            let done = open(&config).await?.account_remove(&name, &actor()).await;
            done.map_err(|error| explained(error, "account"))?;
            eprintln!("removed; open connections end now");
        }
    }
    Ok(())
}

fn sees(areas: &[domain::Area]) -> String {
    match areas {
        [] => "everything".to_owned(),
        areas => areas.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn as_json(account: &AccountRecord) -> serde_json::Value {
    serde_json::json!({
        "name": account.name,
        "areas": account.areas,
        "enabled": account.enabled,
        "created": account.created,
        "changed": account.changed,
    })
}
