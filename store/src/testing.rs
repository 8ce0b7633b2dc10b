//! Databases for tests: a fresh one per test from a migrated template, and clusters that a test may break.
//!
//! The server is that of `LIFTWATCH_TEST_DATABASE_URL`, whose user must be a superuser, or else a private
//! cluster of its own beside the user's, shared by all test runs of this machine. Panics where it cannot
//! serve: a test has nothing better to do.

mod breakable;
mod bulk;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::OnceCell;

use crate::database::{Database, MIGRATOR, StoreConfig};
use crate::local::LocalDatabase;
pub use bulk::Bulk;

const URL_VARIABLE: &str = "LIFTWATCH_TEST_DATABASE_URL";
/// Names a server of the Community edition, with a superuser; Debian has none.
const COMMUNITY_URL_VARIABLE: &str = "LIFTWATCH_TEST_COMMUNITY_URL";
/// Names what [`make_template`] does beyond the migrations; raise it when that changes.
const TEMPLATE_VERSION: u32 = 2;
/// Any number, the same for all: serialises the making of templates.
const TEMPLATE_LOCK: i64 = 0x6c69_6674_0001;

/// A migrated, empty database of one test. Dropped with the value.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
    url: String,
}

impl TestDatabase {
    /// Makes one, in 0.05 to 0.3 s once the template is there.
    pub async fn new() -> Self {
        let server = server_url().await;
        let template = template(&server).await;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let nonce = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let name = format!("liftwatch_test_{}_{count}_{nonce}", std::process::id());
        let mut admin = admin(&server).await;
        execute(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let url = with_database(&server, &name);
        Self { server, name, url }
    }

    /// Makes one on a server of the Community edition, without a template, whose jobs would be in the way. Where
    /// none is named, says that `test` is skipped.
    pub async fn community(test: &str) -> Option<Self> {
        let Some(server) = std::env::var(COMMUNITY_URL_VARIABLE).ok().filter(|url| !url.is_empty()) else {
            eprintln!("SKIPPED {test}: {COMMUNITY_URL_VARIABLE} names no server of the Community edition");
            return None;
        };
        let made = Self::made_blank(server, "community").await;
        let database = Database::connect(&made.url).await.expect("a new database answers");
        database.migrate().await.expect("the migrations apply");
        assert_eq!(
            database.edition().await.expect("the edition can be told"),
            crate::Edition::Community,
            "{COMMUNITY_URL_VARIABLE} names a server of the Apache edition"
        );
        database.close().await;
        Some(made)
    }

    /// Makes one without a schema, which is not even migrated.
    pub async fn blank() -> Self {
        Self::made_blank(server_url().await, "blank").await
    }

    async fn made_blank(server: String, kind: &str) -> Self {
        let nonce = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let name = format!("liftwatch_test_{kind}_{}_{nonce}", std::process::id());
        let mut admin = admin(&server).await;
        execute(&mut admin, format!("CREATE DATABASE {name}")).await;
        let url = with_database(&server, &name);
        Self { server, name, url }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leaves it on the server, for another run.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Connected, schema ensured. Patient: a server that all tests share may be slow to give a connection.
    pub async fn open(&self) -> Database {
        let config =
            StoreConfig { connect_timeout: std::time::Duration::from_mins(1), ..StoreConfig::default() };
        self.open_with(config).await
    }

    /// Connected with these settings, schema ensured.
    pub async fn open_with(&self, config: StoreConfig) -> Database {
        let database = Database::connect_with(&self.url, config).await.expect("the test database answers");
        database.ensure().await.expect("the schema can be ensured");
        database
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A drop cannot await, and may run inside a runtime: so a thread with one of its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async {
                    if let Ok(mut admin) = PgConnection::connect(&server).await {
                        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                        let _ = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await;
                    }
                });
            }
        });
        let _ = dropped.join();
    }
}

/// A cluster of a test's own, which it may stop, kill and start again.
#[derive(Debug)]
pub struct TestCluster {
    local: LocalDatabase,
    url: String,
    home: home::Home,
    bin: PathBuf,
}

impl TestCluster {
    /// Makes and starts one with an empty, migrated database.
    pub async fn new() -> Self {
        Self::at(home::Home::new(), "").await
    }

    async fn at(home: home::Home, settings: &str) -> Self {
        let bin = LocalDatabase::new().install(|line| eprintln!("{line}")).await;
        let bin = bin.expect("PostgreSQL can be installed");
        let local = LocalDatabase::new().at(home.path()).with_binaries(&bin).with_settings(settings);
        let url = local.up(|_| {}).await.expect("the cluster starts");
        let database = Database::connect(&url).await.expect("the cluster answers");
        database.migrate().await.expect("the schema can be made");
        database.ensure().await.expect("the schema can be ensured");
        database.close().await;
        Self { local, url, home, bin }
    }

    /// The URL of its database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Stops it in an orderly way; connections are cut.
    pub async fn stop(&self) {
        self.local.down().await.expect("the cluster stops");
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&self) {
        self.local.kill().await.expect("the cluster can be killed");
    }

    /// Starts it again.
    pub async fn start(&self) {
        self.local.up(|_| {}).await.expect("the cluster starts again");
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let local = self.local.clone();
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                let _ = runtime.block_on(local.down());
            }
        });
        let _ = stopped.join();
    }
}

/// A short-named directory that the server's account can enter, removed when dropped.
mod home {
    use std::path::{Path, PathBuf};

    /// The path, and whether a disk of its own is mounted there.
    #[derive(Debug)]
    pub(super) struct Home(PathBuf, bool);

    impl Home {
        pub(super) fn new() -> Self {
            let name = format!("liftwatch-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).expect("the temporary directory can be written");
            Self(path, false)
        }

        /// On a disk of its own, where this account may mount one.
        pub(super) fn on_disk(megabytes: u32) -> Option<Self> {
            let mut home = Self::new();
            let size = format!("size={megabytes}m,mode=755");
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path());
            home.1 = mount.output().is_ok_and(|output| output.status.success());
            home.1.then_some(home)
        }

        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            if self.1 {
                // Lazily: a process that is just ending may still hold it.
                let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
            }
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

async fn server_url() -> String {
    static URL: OnceCell<String> = OnceCell::const_new();
    let url = URL.get_or_init(|| async {
        match std::env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => url,
            _ => {
                let local = test_cluster();
                local.up(|line| eprintln!("test database: {line}")).await.expect("the test cluster starts")
            }
        }
    });
    url.await.clone()
}

/// The cluster that all test runs of this user share.
fn test_cluster() -> LocalDatabase {
    let home = std::env::var_os("LIFTWATCH_TEST_DB_HOME").map_or_else(
        || {
            // By the account: files of one cannot be shared with another.
            let uid = std::fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data));
            std::env::temp_dir().join(format!("liftwatch-test-{}", uid.unwrap_or_default()))
        },
        Into::into,
    );
    LocalDatabase::new().at(home).with_settings("max_connections = 400\nmax_worker_processes = 64")
}

async fn admin(server: &str) -> PgConnection {
    PgConnection::connect(server).await.expect("the test server answers")
}

async fn execute(connection: &mut PgConnection, sql: String) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.as_str())).execute(connection).await;
    if let Err(error) = done {
        panic!("{sql}: {error}");
    }
}

/// The URL with another database.
fn with_database(url: &str, name: &str) -> String {
    let (head, query) = url.split_once('?').unwrap_or((url, ""));
    let authority = head.find("://").map_or(0, |at| at + 3);
    let end = head[authority..].find('/').map_or(head.len(), |at| authority + at);
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{}/{name}{query}", &head[..end])
}

/// The name of the migrated template, made if it is not there.
async fn template(server: &str) -> String {
    static NAME: OnceCell<String> = OnceCell::const_new();
    NAME.get_or_init(|| make_template(server)).await.clone()
}

async fn make_template(server: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(TEMPLATE_VERSION.to_be_bytes());
    for migration in MIGRATOR.iter() {
        hash.update(&migration.checksum);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let digest = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let name = format!("liftwatch_template_{digest:016x}");

    let mut admin = admin(server).await;
    // Held until this connection ends. The name is given last, so a template is complete or absent.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut admin).await.expect("a lock");
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut admin)
        .await
        .expect("databases can be listed");
    if known {
        return name;
    }
    let building = format!("{name}_building");
    execute(&mut admin, format!("DROP DATABASE IF EXISTS {building} WITH (FORCE)")).await;
    execute(&mut admin, format!("CREATE DATABASE {building}")).await;
    let database =
        Database::connect(&with_database(server, &building)).await.expect("a new database answers");
    database.migrate().await.expect("the migrations apply");
    database.ensure().await.expect("the schema can be ensured");
    database.close().await;
    // TimescaleDB's scheduler connects to every database that lets it, and a template in use cannot be copied.
    execute(&mut admin, format!("ALTER DATABASE {building} WITH ALLOW_CONNECTIONS false")).await;
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
        .bind(&building)
        .execute(&mut admin)
        .await
        .expect("a superuser may end backends");
    for attempt in 1.. {
        let sql = format!("ALTER DATABASE {building} RENAME TO {name}");
        match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await {
            Ok(_) => break,
            // A backend needs a moment to end.
            Err(error) => assert!(attempt < 100, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_take_another_database() {
        assert_eq!(with_database("postgres://u@h/a?host=%2Fx", "b"), "postgres://u@h/b?host=%2Fx");
        assert_eq!(with_database("postgres://u@h", "b"), "postgres://u@h/b");
    }
}
