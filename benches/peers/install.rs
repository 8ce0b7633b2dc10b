//! What the peers need, fetched once into a folder of the build; what cannot be had is left out with a word.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where everything is.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers")
}

/// The interpreter of a virtual environment with what `consumer.py` imports.
pub(crate) fn python() -> Result<PathBuf, String> {
    let home = folder().join("python");
    let python = home.join("bin/python");
    let imports = ["-c", "import asyncpg, gmqtt, orjson, uvloop"];
    if !works(Command::new(&python).args(imports)) {
        println!("installing gmqtt, asyncpg, orjson and uvloop into {}", home.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        let packages = ["install", "--quiet", "gmqtt", "asyncpg", "orjson", "uvloop"];
        run(Command::new(home.join("bin/pip")).args(packages))?;
        run(Command::new(&python).args(imports))?;
    }
    Ok(python)
}

/// A folder with Node-RED and the PostgreSQL client in `node_modules`.
pub(crate) fn node_red() -> Result<PathBuf, String> {
    let home = folder().join("node-red");
    let is_there = ["node-red", "pg", "pg-copy-streams"]
        .iter()
        .all(|name| home.join("node_modules").join(name).join("package.json").exists());
    if !is_there {
        println!("installing node-red and pg into {}", home.display());
        std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let install = ["install", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").current_dir(&home).args(install).args([
            "node-red",
            "pg",
            "pg-copy-streams",
        ]))?;
    }
    run(Command::new("node").arg("--version"))?;
    Ok(home)
}

/// The broker of the peers; not on the search path of every user.
pub(crate) fn mosquitto() -> Result<PathBuf, String> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|place| place.join("mosquitto"))
        .find(|program| program.exists())
        .ok_or_else(|| "mosquitto is not installed".to_owned())
}

fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.lines().next_back().unwrap_or("it failed")))
}
