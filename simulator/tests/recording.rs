//! Recordings: what was written is read, whatever becomes of the file.

#![allow(clippy::unwrap_used)]

mod format {
    use std::{fs, path::Path};

    use bytes::Bytes;
    use proptest::prelude::*;
    use simulator::recording::{Entry, Meta, PAYLOAD_BYTES_MAX, Recording, RecordingError, RecordingWriter};

    fn entry() -> impl Strategy<Value = Entry> {
        let time = prop_oneof![any::<i64>(), 0..3_000_000_i64];
        (time, ".{0,40}", 0..3_u8, prop::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(arrived_us, topic, qos, payload)| Entry { arrived_us, topic, qos, payload: payload.into() },
        )
    }

    fn write(path: &Path, entries: &[Entry]) {
        let meta = Meta { filter: "lift/#".into(), ..Meta::default() };
        let mut writer = RecordingWriter::create(path, &meta).unwrap();
        for entry in entries {
            writer.push(entry).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes, fs::metadata(path).unwrap().len());
    }

    /// The entries read, whether there was an error, and whether the end was missing.
    fn read(path: &Path) -> Result<(Vec<Entry>, bool, bool), RecordingError> {
        let mut recording = Recording::open(path)?;
        let (mut entries, mut failed) = (Vec::new(), false);
        for entry in &mut recording {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(_) => failed = true,
            }
        }
        Ok((entries, failed, recording.truncated()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn survives_a_cut_at_every_byte(entries in prop::collection::vec(entry(), 0..12)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("whole");
            write(&path, &entries);
            prop_assert_eq!(read(&path).unwrap(), (entries.clone(), false, false));
            let whole = fs::read(&path).unwrap();
            let mut before = 0;
            for cut in 0..whole.len() {
                fs::write(&path, &whole[..cut]).unwrap();
                let Ok((some, failed, truncated)) = read(&path) else { continue };
                prop_assert!(!failed && truncated, "cut at {}", cut);
                prop_assert_eq!(&some[..], &entries[..some.len()]);
                prop_assert!(some.len() >= before, "a longer file gave fewer entries");
                before = some.len();
            }
            prop_assert_eq!(before, entries.len(), "all entries are there before the end mark");
        }

        #[test]
        fn never_panics_nor_invents(
            entries in prop::collection::vec(entry(), 1..12),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("flipped");
            write(&path, &entries);
            let mut bytes = fs::read(&path).unwrap();
            for (at, bit) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            fs::write(&path, &bytes).unwrap();
            if let Ok((some, ..)) = read(&path) {
                prop_assert!(some.len() <= entries.len());
            }
        }
    }

    #[test]
    fn frames_are_bounded_and_so_are_entries() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        let entry =
            |len| Entry { arrived_us: 1, topic: "t".into(), qos: 1, payload: Bytes::from(vec![7; len]) };
        write(&path, &vec![entry(PAYLOAD_BYTES_MAX); 3]);
        assert_eq!(read(&path).unwrap().0.len(), 3);
        let mut writer = RecordingWriter::create(&path, &Meta::default()).unwrap();
        let refused = writer.push(&entry(PAYLOAD_BYTES_MAX + 1));
        assert!(matches!(refused, Err(RecordingError::TooLong("payload"))));
    }
}
