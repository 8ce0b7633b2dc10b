//! The profiles there are: those that ship, and an operator's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::{Mistake, Profile, parse};

/// The profile of a terminal whose registry record names no other.
pub const CANONICAL: &str = "gb24476";

/// Files of one directory, at most: each is a label of the metrics.
const OWN_MAX: usize = 256;
/// Bytes of one file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// In an order in which each may extend those before it.
const SHIPPED: [(&str, &str); 13] = [
    ("gb24476", include_str!("../../profiles/gb24476.toml")),
    ("chongqing", include_str!("../../profiles/chongqing.toml")),
    ("exchange", include_str!("../../profiles/exchange.toml")),
    ("shanghai_city", include_str!("../../profiles/shanghai_city.toml")),
    ("retrofit", include_str!("../../profiles/retrofit.toml")),
    ("retrofit_a", include_str!("../../profiles/retrofit_a.toml")),
    ("retrofit_b", include_str!("../../profiles/retrofit_b.toml")),
    ("edge_camera", include_str!("../../profiles/edge_camera.toml")),
    ("terminal_json", include_str!("../../profiles/terminal_json.toml")),
    ("gprs_tlv", include_str!("../../profiles/gprs_tlv.toml")),
    ("telecom_flag", include_str!("../../profiles/telecom_flag.toml")),
    ("bacnet_lift", include_str!("../../profiles/bacnet_lift.toml")),
    ("bacnet_escalator", include_str!("../../profiles/bacnet_escalator.toml")),
];

/// Why own profiles cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    /// A file or the directory cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has mistakes.
    #[error("{}:{}", path.display(), told(mistakes))]
    Mistakes {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        mistakes: Vec<Mistake>,
    },
    /// The name is taken.
    #[error("{}: a profile '{name}' is there already: an own one needs a name of its own", path.display())]
    Taken {
        /// Which file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Too many files.
    #[error("{}: at most {OWN_MAX} profiles", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

fn told(mistakes: &[Mistake]) -> String {
    let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// All profiles by name.
#[derive(Debug, Clone)]
pub struct Profiles {
    by_name: BTreeMap<Arc<str>, Arc<Profile>>,
    canonical: Arc<Profile>,
}

impl Profiles {
    /// Those that ship.
    pub fn shipped() -> &'static Self {
        static ALL: LazyLock<Profiles> = LazyLock::new(|| {
            let blank = Arc::new(parse::blank());
            let mut all = Profiles { by_name: BTreeMap::new(), canonical: blank };
            for (name, text) in SHIPPED {
                let profile = match parse::parse(text, &all) {
                    Ok(profile) => Arc::new(profile),
                    // A test parses each of them.
                    Err(mistakes) => panic!("profile {name}: {}", told(&mistakes)),
                };
                if name == CANONICAL {
                    all.canonical = profile.clone();
                }
                all.by_name.insert(profile.name().clone(), profile);
            }
            all
        });
        &ALL
    }

    /// Those that ship, and those of a directory: every `*.toml` in it, in the order of their names, so that one
    /// may extend another that comes before it.
    pub fn with_directory(directory: &Path) -> Result<Self, ProfilesError> {
        let unread = |path: &Path| {
            let path = path.to_owned();
            move |source| ProfilesError::Read { path, source }
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unread(directory))? {
            let path = entry.map_err(unread(directory))?.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                files.push(path);
            }
        }
        if files.len() > OWN_MAX {
            return Err(ProfilesError::TooMany { path: directory.to_owned() });
        }
        files.sort();
        let mut all = Self::shipped().clone();
        for path in files {
            let text = read(&path).map_err(unread(&path))?;
            all.add(&path, &text)?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), ProfilesError> {
        let profile = parse::parse(text, self)
            .map_err(|mistakes| ProfilesError::Mistakes { path: path.to_owned(), mistakes })?;
        if self.get(profile.name()).is_some() {
            return Err(ProfilesError::Taken { path: path.to_owned(), name: profile.name().to_string() });
        }
        self.by_name.insert(profile.name().clone(), Arc::new(profile));
        Ok(())
    }

    /// Reads one profile that is not among these.
    pub fn read(&self, text: &str) -> Result<Profile, Vec<Mistake>> {
        parse::parse(text, self)
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        self.by_name.get(name)
    }

    /// GB/T 24476.
    pub fn canonical(&self) -> &Arc<Profile> {
        &self.canonical
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// All of them, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.by_name.values()
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    std::fs::read_to_string(path)
}

/// Names of the registry, resolved. The registry shares one `Arc` among all terminals of a profile, so most
/// look-ups compare a pointer.
#[derive(Debug)]
pub struct Resolver {
    profiles: Arc<Profiles>,
    seen: Vec<(Arc<str>, Arc<Profile>, bool)>,
}

/// Names remembered; beyond that (the registry was read again many times) it begins anew.
const SEEN_MAX: usize = 64;

impl Resolver {
    /// Resolves to these.
    pub fn new(profiles: Arc<Profiles>) -> Self {
        Self { profiles, seen: Vec::new() }
    }

    /// The profile of this name, and whether there is one: otherwise it is the canonical one.
    pub fn resolve(&mut self, name: &Arc<str>) -> (&Arc<Profile>, bool) {
        let index = match self.seen.iter().position(|(seen, ..)| Arc::ptr_eq(seen, name)) {
            Some(index) => index,
            None => self.remember(name),
        };
        let (_, profile, known) = &self.seen[index];
        (profile, *known)
    }

    fn remember(&mut self, name: &Arc<str>) -> usize {
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        let found = self.profiles.get(name);
        let known = found.is_some();
        let profile = found.unwrap_or_else(|| self.profiles.canonical()).clone();
        self.seen.push((name.clone(), profile, known));
        self.seen.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_is_sound_and_named_as_its_file() {
        assert_eq!(Profiles::shipped().all().count(), SHIPPED.len());
        for (name, text) in SHIPPED {
            let profile = Profiles::shipped().get(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(profile.text(), text, "{name}");
            assert!(!profile.title().is_empty() && !profile.source().is_empty(), "{name}");
        }
        assert_eq!(&**Profiles::shipped().canonical().name(), CANONICAL);
    }

    #[test]
    fn own_profiles_come_from_a_directory_and_replace_none_that_ships() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "a.toml",
            "name = \"acme\"\ntitle = \"Acme\"\nextends = \"retrofit\"\n[codes.lift]\n99 = \"car_impact\"\n",
        );
        write("b.toml", "name = \"acme2\"\ntitle = \"Acme 2\"\nextends = \"acme\"\n");
        write("notes.txt", "not a profile");
        let all = Profiles::with_directory(folder.path()).unwrap();
        assert_eq!(all.names().count(), SHIPPED.len() + 2);
        assert_eq!(all.get("acme2").unwrap().codes_len(domain::DeviceKind::Lift), 16);

        write("c.toml", "name = \"retrofit\"\ntitle = \"Mine\"\n");
        let taken = Profiles::with_directory(folder.path()).unwrap_err().to_string();
        assert!(taken.contains("c.toml: a profile 'retrofit' is there already"), "{taken}");
        write("c.toml", "name = \"mine\"\ntitel = \"Mine\"\n");
        let wrong = Profiles::with_directory(folder.path()).unwrap_err().to_string();
        assert!(wrong.contains("c.toml:") && wrong.contains("'title'"), "{wrong}");
        let missing = Profiles::with_directory(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert_eq!(missing, "/nowhere/at/all cannot be read");
    }

    #[test]
    fn names_are_resolved_by_pointer_and_unknown_ones_are_canonical() {
        let mut resolver = Resolver::new(Arc::new(Profiles::shipped().clone()));
        let (exchange, strange): (Arc<str>, Arc<str>) = ("exchange".into(), "strange".into());
        assert_eq!(resolver.resolve(&exchange).0.name(), &exchange);
        let (profile, known) = resolver.resolve(&strange);
        assert_eq!((&**profile.name(), known), (CANONICAL, false));
        for _ in 0..1_000 {
            let again: Arc<str> = "exchange".into();
            assert!(resolver.resolve(&again).1);
        }
        assert!(resolver.seen.len() <= SEEN_MAX);
    }
}
