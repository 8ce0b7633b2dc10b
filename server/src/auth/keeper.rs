//! The decision on a CONNECT, from memory alone.
//!
//! Owns the snapshot of who may connect and the cache of verified secrets. The cache holds a keyed hash of the
//! secret that fitted last, under a key of this process: no secret lies in memory, a reconnect costs
//! microseconds, and there is at most one entry for each terminal and account.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use broker::{AuthFuture, Authenticate, ClientCertificate, ConnectInfo, Principal, Refusal};
use domain::{TerminalId, Timestamp};
use rand::Rng;
use sha2::{Digest, Sha256};
use store::{AccessSnapshot, AccountRecord, Credential, TerminalAccess};
use tokio::sync::mpsc;

use super::lane::Lane;
use super::secret::{self, SECRET_BYTES_MAX, Strength};
use super::throttle::Throttle;
use super::{AuthMetrics, account_part, rights};

/// Slow hashes at work and waiting: the last one waits for less than the deadline of a CONNECT.
const CHOSEN_PLACES: usize = 128;
/// Fast ones: a fleet that comes back at once.
const GENERATED_PLACES: usize = 16_384;

/// What was verified, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Terminal(String),
    Account(String),
}

#[derive(Debug)]
struct Verified {
    digest: [u8; 32],
    hash: Arc<str>,
}

/// Who may connect, and what is needed to take an unknown one for a known one.
#[derive(Debug, Default)]
struct Access {
    snapshot: AccessSnapshot,
    /// Terminals with a slow hash, of those with any.
    chosen: u64,
    credentials: u64,
    loaded: bool,
}

/// Why a client is refused: what is counted and logged. The client is told [`Refused::outside`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// Wrong secret, no secret, unknown id: a client cannot tell which.
    Credentials,
    /// Proven, but switched off.
    Disabled,
    /// The certificate is another's.
    Certificate,
    /// A certificate of ours, for an id that is not registered.
    Unregistered,
    /// The account may not use this client id.
    ClientId,
    /// Too many are being decided on.
    Busy,
    /// Not read yet.
    NotReady,
}

impl Refused {
    fn label(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Disabled => "disabled",
            Self::Certificate => "certificate_of_another",
            Self::Unregistered => "unregistered",
            Self::ClientId => "client_id",
            Self::Busy => "busy",
            Self::NotReady => "not_ready",
        }
    }

    fn outside(self) -> Refusal {
        match self {
            Self::Credentials => Refusal::BadCredentials,
            Self::Disabled | Self::Certificate | Self::Unregistered | Self::ClientId => {
                Refusal::NotAuthorized
            }
            Self::Busy | Self::NotReady => Refusal::Unavailable,
        }
    }
}

/// Decides who may connect.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    access: RwLock<Arc<Access>>,
    verified: Mutex<HashMap<Holder, Verified>>,
    /// Accounts that connected without a client id, by the id the gate made up for them, and whether they are new or
    /// the look at the connections that is under way has seen them.
    unnamed: Mutex<HashMap<String, (String, bool)>>,
    key: [u8; 32],
    /// Hashes that no secret fits.
    decoys: [Arc<str>; 2],
    lanes: [Lane; 2],
    /// Terminals that used their new secret. Full: told again at the next connect.
    settled: mpsc::Sender<(TerminalId, String)>,
    metrics: AuthMetrics,
    throttle: Throttle,
}

impl Gatekeeper {
    /// One that lets nobody in until it is given a snapshot. `settled` hears of terminals that used a new secret.
    pub(crate) fn new(
        metrics: AuthMetrics,
        settled: mpsc::Sender<(TerminalId, String)>,
    ) -> anyhow::Result<Self> {
        let decoy = |strength| secret::hash(secret::generate().as_bytes(), strength).map(Arc::from);
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            access: RwLock::default(),
            verified: Mutex::default(),
            unnamed: Mutex::default(),
            key: rand::rng().random(),
            decoys: [decoy(Strength::Chosen)?, decoy(Strength::Generated)?],
            // Half the cores for the slow ones: the rest of the work goes on.
            lanes: [Lane::new(cores.div_ceil(2), CHOSEN_PLACES), Lane::new(cores, GENERATED_PLACES)],
            settled,
            metrics,
            throttle: Throttle::default(),
        })
    }

    /// Puts a new snapshot in force. Answers the terminals and accounts whose rights it changes.
    pub(super) fn install(&self, snapshot: AccessSnapshot) -> Moved {
        let hashes = snapshot.terminals.values().filter_map(|terminal| terminal.credential.as_ref());
        let (mut chosen, mut credentials) = (0, 0);
        for credential in hashes {
            credentials += 1;
            chosen += u64::from(Strength::of(&credential.hash) == Strength::Chosen);
        }
        self.metrics.terminals.set(snapshot.terminals.len() as i64);
        self.metrics.accounts.set(snapshot.accounts.len() as i64);
        self.metrics.refreshed("read");
        let new = Arc::new(Access { snapshot, chosen, credentials, loaded: true });
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *access, Arc::clone(&new));
        drop(access);
        Moved::between(&old.snapshot, &new.snapshot)
    }

    pub(super) fn metrics(&self) -> &AuthMetrics {
        &self.metrics
    }

    /// Drops what is no longer true and gives the judge of the connections that are open now.
    pub(super) fn review(&self, moved: Moved, now: Timestamp) -> Review<'_> {
        let access = self.access();
        let mut verified = lock(&self.verified);
        verified.retain(|holder, entry| match holder {
            Holder::Terminal(id) => access
                .terminal(id)
                .and_then(|terminal| terminal.credential.as_ref())
                .is_some_and(|credential| good(credential, now).any(|hash| *hash == entry.hash)),
            Holder::Account(name) => access.account(name).is_some_and(|account| account.hash == entry.hash),
        });
        let unnamed = Mutex::new(std::mem::take(&mut *lock(&self.unnamed)));
        Review { keeper: self, access, verified, unnamed, moved }
    }

    fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn decide(&self, info: &ConnectInfo, now: Timestamp) -> Result<Principal, Refused> {
        let access = self.access();
        if !access.loaded {
            return Err(Refused::NotReady);
        }
        if let Some(name) = access.account_named(info) {
            return self.account(&access, name, info).await;
        }
        match &info.origin.certificate {
            Some(certificate) => self.by_certificate(&access, certificate, info),
            None => self.by_secret(&access, info, now).await,
        }
    }

    fn by_certificate(
        &self,
        access: &Access,
        certificate: &ClientCertificate,
        info: &ConnectInfo,
    ) -> Result<Principal, Refused> {
        if info.generated_id || certificate.common_name != info.client_id {
            return Err(Refused::Certificate);
        }
        let terminal = access.terminal(&info.client_id).ok_or(Refused::Unregistered)?;
        let principal = admit(&info.client_id, terminal)?;
        self.metrics.accepted("certificate");
        Ok(principal)
    }

    async fn by_secret(
        &self,
        access: &Access,
        info: &ConnectInfo,
        now: Timestamp,
    ) -> Result<Principal, Refused> {
        let id = &info.client_id;
        let known = access.terminal(id).filter(|_| !info.generated_id);
        let hashes = known
            .and_then(|terminal| terminal.credential.as_ref())
            .map(|credential| self.good(id, credential, now))
            .unwrap_or_default();
        let decoy = if access.looks_chosen(&self.key, id) { Strength::Chosen } else { Strength::Generated };
        let holder = Holder::Terminal(id.clone());
        let (hash, proof) = self.prove(holder, hashes, decoy, info).await?;
        // It may have changed while the secret was hashed.
        let access = self.access();
        let terminal = access.terminal(id).ok_or(Refused::Credentials)?;
        let credential = terminal.credential.as_ref().ok_or(Refused::Credentials)?;
        if !self.good(id, credential, now).contains(&hash) {
            return Err(Refused::Credentials);
        }
        let principal = admit(id, terminal)?;
        if credential.previous.is_some()
            && credential.hash == hash
            && let Ok(terminal_id) = TerminalId::new(id)
        {
            let _ = self.settled.try_send((terminal_id, hash.to_string()));
        }
        self.metrics.accepted(proof);
        Ok(principal)
    }

    /// The hashes of which a secret is good for this terminal. Once the new one was used the one before is not,
    /// even before the store has heard of it.
    fn good(&self, id: &str, credential: &Credential, now: Timestamp) -> Vec<Arc<str>> {
        let holder = Holder::Terminal(id.to_owned());
        let settled = lock(&self.verified).get(&holder).is_some_and(|entry| entry.hash == credential.hash);
        match settled {
            true => vec![credential.hash.clone()],
            false => good(credential, now).cloned().collect(),
        }
    }

    async fn account(&self, access: &Access, name: &str, info: &ConnectInfo) -> Result<Principal, Refused> {
        let hashes = access.account(name).map(|account| vec![account.hash.clone()]).unwrap_or_default();
        let holder = Holder::Account(name.to_owned());
        let (hash, proof) = self.prove(holder, hashes, Strength::Chosen, info).await?;
        let access = self.access();
        let account = access.account(name).filter(|account| account.hash == hash);
        let account = account.ok_or(Refused::Credentials)?;
        if !account.enabled {
            return Err(Refused::Disabled);
        }
        // Its own ids only, and no terminal's: it could push out the connection of another.
        let own = info.generated_id || account_part(&info.client_id) == name;
        if !own || access.terminal(&info.client_id).is_some() {
            return Err(Refused::ClientId);
        }
        let principal = rights::account(&account.areas).map_err(|_| Refused::ClientId)?;
        if info.generated_id {
            lock(&self.unnamed).insert(info.client_id.clone(), (name.to_owned(), true));
        }
        self.metrics.accepted(proof);
        Ok(principal)
    }

    /// Which of `hashes` the client's secret fits, and how that was found. Without a hash there is the same work.
    async fn prove(
        &self,
        holder: Holder,
        hashes: Vec<Arc<str>>,
        decoy: Strength,
        info: &ConnectInfo,
    ) -> Result<(Arc<str>, &'static str), Refused> {
        let secret = info.password.clone().filter(|secret| secret.len() <= SECRET_BYTES_MAX);
        let secret = secret.ok_or(Refused::Credentials)?;
        let digest = self.digest(&holder, &secret);
        if let Some(hash) = self.remembered(&holder, &digest)
            && hashes.contains(&hash)
        {
            return Ok((hash, "remembered"));
        }
        let strength = hashes.first().map_or(decoy, |hash| Strength::of(hash));
        let [slow, fast] = &self.lanes;
        let (lane, decoy) = match strength {
            Strength::Chosen => (slow, &self.decoys[0]),
            Strength::Generated => (fast, &self.decoys[1]),
        };
        let tried = if hashes.is_empty() { vec![decoy.clone()] } else { hashes };
        let found = lane.verify(tried, secret).await.map_err(|_| Refused::Busy)?;
        let hash = found.ok_or(Refused::Credentials)?;
        lock(&self.verified).insert(holder, Verified { digest, hash: hash.clone() });
        Ok((hash, "secret"))
    }

    fn remembered(&self, holder: &Holder, digest: &[u8; 32]) -> Option<Arc<str>> {
        lock(&self.verified)
            .get(holder)
            .filter(|entry| entry.digest == *digest)
            .map(|entry| entry.hash.clone())
    }

    fn digest(&self, holder: &Holder, secret: &[u8]) -> [u8; 32] {
        let (kind, name) = match holder {
            Holder::Terminal(id) => (0_u8, id),
            Holder::Account(name) => (1, name),
        };
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update([kind]);
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(name.as_bytes());
        digest.update(secret);
        digest.finalize().into()
    }
}

impl Authenticate for Gatekeeper {
    fn authenticate<'a>(&'a self, info: &'a ConnectInfo) -> AuthFuture<'a> {
        Box::pin(async move {
            let now = time::OffsetDateTime::now_utc().into();
            self.decide(info, now).await.map_err(|refused| {
                self.metrics.refused(refused.label());
                if let Some(silent) = self.throttle.pass(Instant::now()) {
                    let (client_id, peer) = (&info.client_id, info.origin.peer);
                    tracing::info!(?client_id, %peer, reason = refused.label(), silent, "a client was refused");
                }
                refused.outside()
            })
        })
    }
}

impl Access {
    fn terminal(&self, id: &str) -> Option<&TerminalAccess> {
        self.snapshot.terminals.get(id)
    }

    fn account(&self, name: &str) -> Option<&AccountRecord> {
        self.snapshot.accounts.get(name)
    }

    /// The account a client says it is: any user name that is not the client's own id, or is one of an account.
    fn account_named<'a>(&self, info: &'a ConnectInfo) -> Option<&'a str> {
        let name = info.username.as_deref().filter(|name| !name.is_empty())?;
        let terminal = name == info.client_id
            && (self.terminal(&info.client_id).is_some() || self.account(name).is_none());
        (!terminal).then_some(name)
    }

    /// Whether an unknown terminal shall cost as much as one with a slow hash: as often as the known ones do, and
    /// always the same for an id.
    fn looks_chosen(&self, key: &[u8; 32], id: &str) -> bool {
        let mut digest = Sha256::new();
        digest.update(key);
        digest.update([2]);
        digest.update(id.as_bytes());
        let bytes: [u8; 32] = digest.finalize().into();
        let draw = bytes.iter().take(7).fold(0_u64, |draw, byte| draw << 8 | u64::from(*byte));
        self.credentials > 0 && draw % self.credentials < self.chosen
    }
}

/// The hashes of which a secret is good now.
fn good(credential: &Credential, now: Timestamp) -> impl Iterator<Item = &Arc<str>> {
    let previous = credential.previous.as_ref().filter(move |(_, until)| now < *until).map(|(hash, _)| hash);
    std::iter::once(&credential.hash).chain(previous)
}

fn admit(id: &str, terminal: &TerminalAccess) -> Result<Principal, Refused> {
    if !terminal.enabled {
        return Err(Refused::Disabled);
    }
    rights::terminal(id, terminal.area).map_err(|_| Refused::Credentials)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Terminals and accounts that were in two snapshots under different areas: open connections have old rights.
#[derive(Debug, Default)]
pub(super) struct Moved {
    terminals: HashSet<String>,
    accounts: HashSet<String>,
}

impl Moved {
    fn between(old: &AccessSnapshot, new: &AccessSnapshot) -> Self {
        let terminals = old.terminals.iter().filter(|(id, before)| {
            new.terminals.get(id.as_str()).is_some_and(|after| after.area != before.area)
        });
        let accounts = old.accounts.iter().filter(|(name, before)| {
            new.accounts.get(name.as_str()).is_some_and(|after| after.areas != before.areas)
        });
        Self {
            terminals: terminals.map(|(id, _)| id.as_str().to_owned()).collect(),
            accounts: accounts.map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// One look at all open connections.
pub(super) struct Review<'a> {
    keeper: &'a Gatekeeper,
    access: Arc<Access>,
    verified: MutexGuard<'a, HashMap<Holder, Verified>>,
    unnamed: Mutex<HashMap<String, (String, bool)>>,
    moved: Moved,
}

impl Review<'_> {
    /// Whether this connection has lost its right.
    pub(super) fn lost(&self, client_id: &str, certificate: Option<&ClientCertificate>) -> bool {
        if let Some(terminal) = self.access.terminal(client_id) {
            let proven = certificate.is_some_and(|certificate| certificate.common_name == client_id)
                || self.verified.contains_key(&Holder::Terminal(client_id.to_owned()));
            return !terminal.enabled || !proven || self.moved.terminals.contains(client_id);
        }
        let unnamed = lock(&self.unnamed).get_mut(client_id).map(|(name, seen)| {
            *seen = true;
            name.clone()
        });
        let name = unnamed.as_deref().unwrap_or(account_part(client_id));
        let good = self.access.account(name).is_some_and(|account| {
            account.enabled && self.verified.contains_key(&Holder::Account(name.to_owned()))
        });
        !good || self.moved.accounts.contains(name)
    }

    /// Ends the look: connections without a name of their own that it has not seen are forgotten, unless they have
    /// come only now.
    pub(super) fn finish(self) {
        let seen = self.unnamed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let kept = seen.into_iter().filter(|(_, (_, seen))| *seen).map(|(id, (name, _))| (id, (name, false)));
        lock(&self.keeper.unnamed).extend(kept);
    }
}

#[cfg(test)]
mod tests;
