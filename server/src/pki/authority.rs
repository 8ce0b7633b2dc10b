//! The authority: its key, what it has issued, and what it has revoked.
//!
//! `index.json` is written before a certificate is, so that every certificate there is can be revoked.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use domain::Timestamp;
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::files::{self, Readable};

const INDEX: &str = "index.json";
/// Clocks of terminals may be behind.
const BACKDATED: Duration = Duration::hours(1);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Purpose {
    Server,
    Terminal,
}

impl Purpose {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Terminal => "terminal",
        }
    }
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issued {
    /// Hexadecimal, without leading zeros.
    pub(super) serial: String,
    pub(super) name: String,
    pub(super) purpose: Purpose,
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    name: String,
    expires: Timestamp,
    crl_number: u64,
    certificates: Vec<Issued>,
}

/// An authority in a folder.
pub(super) struct Authority {
    folder: PathBuf,
    index: Index,
    issuer: Issuer<'static, KeyPair>,
    _lock: File,
}

impl Authority {
    /// Makes a new one; refuses a folder that holds one already.
    pub(super) fn create(folder: &Path, name: &str, days: u32, now: OffsetDateTime) -> anyhow::Result<Self> {
        files::folder(folder)?;
        let lock = files::lock(folder)?;
        for file in [INDEX, "ca.key", "ca.pem", "server.key"] {
            let path = folder.join(file);
            ensure!(
                !path.exists(),
                "{} is there already and is not overwritten: name another folder with --dir",
                path.display()
            );
        }
        files::folder(&folder.join("terminals"))?;
        let expires = now + Duration::days(days.into());
        let key = KeyPair::generate().context("no key for the authority")?;
        let mut params = issuer_params(name);
        (params.not_before, params.not_after) = (now - BACKDATED, expires);
        params.serial_number = Some(serial().1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).context("the authority cannot sign itself")?;
        files::replace(&folder.join("ca.key"), &key.serialize_pem(), Readable::ByOwner)?;
        files::replace(&folder.join("ca.pem"), &certificate.pem(), Readable::ByAll)?;
        let index =
            Index { name: name.to_owned(), expires: expires.into(), crl_number: 0, certificates: Vec::new() };
        let issuer = Issuer::new(issuer_params(name), key);
        let mut authority = Self { folder: folder.to_owned(), index, issuer, _lock: lock };
        authority.sign_list(now)?;
        Ok(authority)
    }

    /// Opens one that was made before.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}: 'liftwatch pki init' makes an authority, --dir names its folder",
                    path.display()
                )
            })
        };
        read(INDEX)?;
        let lock = files::lock(folder)?;
        let index: Index = serde_json::from_str(&read(INDEX)?)
            .with_context(|| format!("{} is damaged", folder.join(INDEX).display()))?;
        let key = KeyPair::from_pem(&read("ca.key")?).context("ca.key is damaged")?;
        let issuer = Issuer::new(issuer_params(&index.name), key);
        Ok(Self { folder: folder.to_owned(), index, issuer, _lock: lock })
    }

    /// What was issued, oldest first.
    pub(super) fn issued(&self) -> &[Issued] {
        &self.index.certificates
    }

    /// Certificate and key of a terminal.
    pub(super) fn terminal_files(&self, id: &str) -> (PathBuf, PathBuf) {
        let terminals = self.folder.join("terminals");
        (terminals.join(format!("{id}.pem")), terminals.join(format!("{id}.key")))
    }

    /// A certificate for a terminal; one that is valid already is not replaced, unless `renew`.
    pub(super) fn issue_terminal(
        &mut self,
        id: &str,
        days: u32,
        renew: bool,
        now: OffsetDateTime,
    ) -> anyhow::Result<Issued> {
        let valid = self.index.certificates.iter().any(|known| {
            known.name == id
                && known.purpose == Purpose::Terminal
                && known.revoked.is_none()
                && known.expires > now.into()
        });
        ensure!(
            renew || !valid,
            "{id} has a valid certificate: --renew issues another one, 'pki revoke' ends it"
        );
        let files = self.terminal_files(id);
        self.issue(CertificateParams::default(), id, Purpose::Terminal, days, now, files)
    }

    /// The certificate of the server, for these names and addresses.
    pub(super) fn issue_server(
        &mut self,
        hosts: &[String],
        days: u32,
        now: OffsetDateTime,
    ) -> anyhow::Result<Issued> {
        let params = CertificateParams::new(hosts)
            .with_context(|| format!("not all of these are names or addresses: {}", hosts.join(", ")))?;
        let files = (self.folder.join("server.pem"), self.folder.join("server.key"));
        let name = hosts.first().map_or("localhost", String::as_str).to_owned();
        self.issue(params, &name, Purpose::Server, days, now, files)
    }

    fn issue(
        &mut self,
        mut params: CertificateParams,
        name: &str,
        purpose: Purpose,
        days: u32,
        now: OffsetDateTime,
        (certificate_path, key_path): (PathBuf, PathBuf),
    ) -> anyhow::Result<Issued> {
        let Some(end) = self.index.expires.to_utc().filter(|end| *end > now) else {
            bail!("the authority has expired: make a new one in another folder")
        };
        // Never beyond the authority's own end: such a certificate would be refused before its time.
        let expires = (now + Duration::days(days.into())).min(end);
        let (text, serial) = serial();
        params.distinguished_name = distinguished(name);
        (params.not_before, params.not_after) = (now - BACKDATED, expires);
        params.serial_number = Some(serial);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Terminal => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("no key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("the certificate cannot be signed")?;
        let issued = Issued {
            serial: text,
            name: name.to_owned(),
            purpose,
            issued: now.into(),
            expires: expires.into(),
            revoked: None,
        };
        self.index.certificates.push(issued.clone());
        self.save()?;
        files::replace(&key_path, &key.serialize_pem(), Readable::ByOwner)?;
        files::replace(&certificate_path, &certificate.pem(), Readable::ByAll)?;
        Ok(issued)
    }

    /// Revokes all certificates of these terminals, or the one with this serial number; answers how many.
    pub(super) fn revoke(
        &mut self,
        ids: &[&str],
        serial: Option<&str>,
        now: OffsetDateTime,
    ) -> anyhow::Result<usize> {
        let wanted = serial.map(|text| text.replace(':', "").to_ascii_lowercase());
        let wanted = wanted.as_deref().map(|text| text.trim_start_matches('0'));
        let concerns = |known: &Issued| match wanted {
            Some(serial) => known.serial == serial,
            None => known.purpose == Purpose::Terminal && ids.contains(&known.name.as_str()),
        };
        for id in ids {
            let known = self.index.certificates.iter().any(|known| concerns(known) && known.name == *id);
            ensure!(known, "{id} has no certificate of this authority: 'liftwatch pki list' shows them");
        }
        let mut count = 0;
        for known in &mut self.index.certificates {
            if concerns(known) && known.revoked.is_none() {
                known.revoked = Some(now.into());
                count += 1;
            }
        }
        ensure!(count > 0, "nothing to revoke: 'liftwatch pki list' shows what is valid");
        self.sign_list(now)?;
        Ok(count)
    }

    /// Signs the revocation list anew and saves the index.
    fn sign_list(&mut self, now: OffsetDateTime) -> anyhow::Result<()> {
        self.index.crl_number += 1;
        let revoked = self.index.certificates.iter().filter_map(|known| {
            Some(RevokedCertParams {
                serial_number: SerialNumber::from(bytes(&known.serial)),
                revocation_time: known.revoked?.to_utc()?,
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: now,
            // The list is copied by hand, so it must not go bad by itself.
            next_update: self.index.expires.to_utc().unwrap_or(now).max(now + Duration::days(1)),
            crl_number: SerialNumber::from(self.index.crl_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).and_then(|list| list.pem());
        let list = list.context("the revocation list cannot be signed")?;
        self.save()?;
        files::replace(&self.folder.join("crl.pem"), &list, Readable::ByAll)
    }

    fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.index)?;
        files::replace(&self.folder.join(INDEX), &text, Readable::ByAll)
    }
}

fn issuer_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A random serial number of 128 bits whose first digit is not zero, so that all programs write it alike.
fn serial() -> (String, SerialNumber) {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    (text, SerialNumber::from(bytes.to_vec()))
}

fn bytes(serial: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        serial.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 08:00 UTC);

    fn authority(folder: &Path) -> Authority {
        Authority::create(folder, "test CA", 365, NOW).unwrap()
    }

    #[test]
    fn an_authority_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        drop(authority(folder.path()));
        let error = Authority::create(folder.path(), "x", 1, NOW).err().unwrap().to_string();
        assert!(error.contains("not overwritten") && error.contains("--dir"), "{error}");
        let nowhere = Authority::open(&folder.path().join("nowhere")).err().unwrap();
        assert!(format!("{nowhere:#}").contains("pki init"), "{nowhere:#}");
    }

    #[test]
    fn a_terminal_has_one_valid_certificate_unless_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = authority(folder.path());
        let first = authority.issue_terminal("t1", 30, false, NOW).unwrap();
        assert!(authority.issue_terminal("t1", 30, false, NOW).is_err());
        let second = authority.issue_terminal("t1", 10_000, true, NOW).unwrap();
        assert_eq!(second.expires, (NOW + Duration::days(365)).into(), "not beyond the authority");
        assert_eq!(authority.revoke(&[], Some(&first.serial.to_uppercase()), NOW).unwrap(), 1);
        assert_eq!(authority.revoke(&["t1"], None, NOW).unwrap(), 1);
        assert!(authority.revoke(&["t1"], None, NOW).is_err());
        assert!(authority.revoke(&["t2"], None, NOW).is_err());
        drop(authority);
        let mut again = Authority::open(folder.path()).unwrap();
        assert!(again.issued().iter().all(|issued| issued.revoked.is_some()));
        again.issue_terminal("t1", 30, false, NOW).unwrap();
        let late = NOW + Duration::days(400);
        assert!(again.issue_terminal("t2", 30, false, late).is_err(), "the authority has expired");
    }

    #[test]
    fn serials_are_plain_hexadecimal() {
        for _ in 0..100 {
            let (text, number) = serial();
            assert!(!text.starts_with('0') && text.len() == 32, "{text}");
            assert_eq!(bytes(&text), number.to_bytes());
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = authority(folder.path());
        let hosts = ["gate.example".to_owned(), "192.0.2.7".to_owned(), "::1".to_owned()];
        assert_eq!(authority.issue_server(&hosts, 30, NOW).unwrap().name, "gate.example");
        assert!(authority.issue_server(&["电梯".to_owned()], 30, NOW).is_err());
    }
}
