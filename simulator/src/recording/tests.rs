use proptest::prelude::*;

use super::*;

fn metadata() -> Metadata {
    Metadata {
        started: Timestamp::from_millis(1_763_769_600_000),
        source: "here".into(),
        filter: "lift/v1/#".into(),
    }
}

prop_compose! {
    fn any_entry()(
        arrived in any::<i64>(),
        topic in "[a-z/é]{0,40}",
        qos in 0_u8..3,
        retain in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) -> Entry {
        Entry { arrived: Timestamp::from_micros(arrived), topic, qos, retain, payload: payload.into() }
    }
}

/// Writes entries, closing the frame after each of which `seals` says so; tells how many bytes of the file
/// hold how many entries.
fn write(entries: &[Entry], seals: &[bool]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut recorder = Recorder::new(Vec::new(), &metadata()).unwrap();
    let mut safe = vec![(recorder.output.len(), 0)];
    for (index, entry) in entries.iter().enumerate() {
        recorder.append(entry).unwrap();
        if seals.get(index).copied().unwrap_or(false) {
            recorder.seal().unwrap();
            safe.push((recorder.output.len(), index + 1));
        }
    }
    let file = recorder.finish().unwrap();
    safe.push((file.len(), entries.len()));
    (file, safe)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::vec(any_entry(), 0..40), seals in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (file, _) = write(&entries, &seals);
        let mut recording = Recording::new(&file[..]).unwrap();
        prop_assert_eq!(recording.metadata(), &metadata());
        let read: Vec<Entry> = recording.by_ref().map(Result::unwrap).collect();
        prop_assert_eq!(read, entries);
        prop_assert!(!recording.truncated());
    }

    #[test]
    fn a_cut_file_gives_every_complete_frame(
        entries in prop::collection::vec(any_entry(), 1..40),
        seals in prop::collection::vec(any::<bool>(), 40),
        cut in any::<prop::sample::Index>(),
    ) {
        let (file, safe) = write(&entries, &seals);
        let cut = safe[0].0 + cut.index(file.len() - safe[0].0 + 1);
        let mut recording = Recording::new(&file[..cut]).unwrap();
        let read: Vec<Entry> = recording.by_ref().map(Result::unwrap).collect();
        let kept = safe.iter().filter(|(bytes, _)| *bytes <= cut).map(|(_, count)| *count).max().unwrap();
        prop_assert!(read.len() >= kept, "{} of {kept} entries", read.len());
        prop_assert_eq!(&read[..], &entries[..read.len()]);
        prop_assert_eq!(recording.truncated(), !safe.iter().any(|(bytes, _)| *bytes == cut));
    }

    #[test]
    fn damage_is_an_error_never_a_wrong_entry(
        entries in prop::collection::vec(any_entry(), 1..20), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let (mut file, safe) = write(&entries, &[]);
        let at = safe[0].0 + at.index(file.len() - safe[0].0);
        file[at] ^= 1 << bit;
        let mut recording = Recording::new(&file[..]).unwrap();
        let read: Vec<_> = recording.by_ref().collect();
        let good = read.iter().filter_map(|entry| entry.as_ref().ok().cloned()).collect::<Vec<_>>();
        let whole = read.iter().all(Result::is_ok) && !recording.truncated() && good.len() == entries.len();
        // A flipped bit of the frame's own header may be one that changes nothing.
        prop_assert!(!whole || good == entries);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(recording) = Recording::new(&bytes[..]) {
            let _ = recording.count();
        }
        let packed = zstd::bulk::compress(&[&MAGIC[..], &b"{\"started\":\"2026-11-22T00:00:00Z\"}\n"[..], &bytes].concat(), 1);
        let _ = Recording::new(&packed.unwrap()[..]).unwrap().count();
    }
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(Recording::new(&b"hello, this is text"[..]), Err(RecordingError::Foreign)));
    let other = zstd::bulk::compress(b"LIFTWATCH-RECORDING\x02{}\n", 1).unwrap();
    assert!(matches!(Recording::new(&other[..]), Err(RecordingError::Foreign)));
}

#[test]
fn an_existing_file_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lwr");
    Recorder::create(&path, &metadata()).unwrap().finish().unwrap();
    assert!(matches!(Recorder::create(&path, &metadata()), Err(RecordingError::Io(_))));
    assert_eq!(Recording::open(&path).unwrap().count(), 0);
}
