//! Secrets and their hashes: argon2id in PHC format.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::Rng;
use rand::distr::{Alphanumeric, SampleString};

/// Letters and digits of a generated secret: 62^43 is more than 2^256.
const GENERATED_LEN: usize = 43;
/// A secret that is longer is not looked at.
pub(crate) const SECRET_BYTES_MAX: usize = 1024;
/// Memory of one hash, KiB: OWASP's recommendation for passwords (19 MiB, two passes).
const CHOSEN_KIB: u32 = 19 * 1024;
/// A secret of 256 random bits cannot be guessed however fast a guess is, so its hash needs no cost; a fleet of
/// 50,000 that reconnects after our restart must be hashed in seconds.
const GENERATED_KIB: u32 = 64;

/// What a secret needs of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Chosen by a person or not known to be random: slow to guess.
    Chosen,
    /// Random, 128 bits and more: fast.
    Generated,
}

impl Strength {
    /// How a stored hash was made.
    pub(crate) fn of(hash: &str) -> Self {
        let light = PasswordHash::new(hash)
            .ok()
            .and_then(|parsed| Params::try_from(&parsed).ok())
            .is_some_and(|params| params.m_cost() <= GENERATED_KIB);
        if light { Self::Generated } else { Self::Chosen }
    }
}

/// A new secret: 256 random bits as letters and digits, which survive every shell and vendor's form.
pub(crate) fn generate() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), GENERATED_LEN)
}

/// Hashes a secret with a salt of its own.
pub(crate) fn hash(secret: &[u8], strength: Strength) -> anyhow::Result<String> {
    let salt: [u8; 16] = rand::rng().random();
    let (memory, passes) = match strength {
        Strength::Chosen => (CHOSEN_KIB, 2),
        Strength::Generated => (GENERATED_KIB, 1),
    };
    let failed = |error: &dyn std::fmt::Display| anyhow::anyhow!("the secret cannot be hashed: {error}");
    let params = Params::new(memory, passes, 1, None).map_err(|error| failed(&error))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = argon.hash_password_with_salt(secret, &salt).map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

/// Whether `hash` is one of `secret`.
pub(crate) fn verify(hash: &str, secret: &[u8]) -> bool {
    // The parameters are those of the hash.
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(secret, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_secret_and_its_strength() {
        for strength in [Strength::Chosen, Strength::Generated] {
            let stored = hash(b"secret", strength).unwrap();
            assert!(stored.starts_with("$argon2id$v=19$m="), "{stored}");
            assert_eq!(Strength::of(&stored), strength);
            assert!(verify(&stored, b"secret"));
            assert!(!verify(&stored, b"Secret"));
            assert_ne!(hash(b"secret", strength).unwrap(), stored, "salted");
        }
        assert!(!verify("", b"secret"));
        assert_eq!(Strength::of("$argon2id$nonsense"), Strength::Chosen);
    }

    #[test]
    fn generated_secrets_are_long_and_plain() {
        let secret = generate();
        assert_eq!(secret.len(), 43);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(secret, generate());
    }
}
