//! The spool's archive: what is compressed is read as if it had stayed, whatever a crash, a damage or a bound does to it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use opmas::journal::{ReadError, SpoolConfig, SpoolReader, verify_spool};
use opmas::model::Span;
use proptest::prelude::*;

use super::command::opmas;
use super::spool::any_body;
use super::{Folder, filled_spool, pushed, raw, small_segments, start};

/// Keeps no closed segment as it was.
fn archiving(segment_bytes: u64) -> SpoolConfig {
    SpoolConfig { keep_bytes: 1, ..small_segments(segment_bytes) }
}

/// A run of opmas that takes in one entry and archives a segment at least, and what it gets to before it ends.
async fn run(folder: &Folder, config: SpoolConfig, needed: u64) {
    let (handle, _) = start(&folder.open(), config);
    handle.retain_from(needed);
    handle.append(vec![pushed("one more")]).await.unwrap();
    handle.close().await;
}

/// Runs until only the newest segment is as it was written.
async fn archived(folder: &Folder) -> Vec<PathBuf> {
    for _ in 0..100 {
        run(folder, archiving(1_000_000), u64::MAX).await;
        if folder.segments("spool").len() == 2 {
            return folder.segments("spool/archive");
        }
    }
    panic!("not archived: {:?}", folder.segments("spool"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn archived_and_live_segments_are_read_as_the_undisturbed_spool(
        bodies in proptest::collection::vec(any_body(), 2..20), segment_bytes in 0..600_u64, runs in 1..5, needed in 2..30_u64,
    ) {
        let folder = Folder::in_memory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (undisturbed, positions) = runtime.block_on(async {
            let (handle, _) = start(&folder.open(), small_segments(segment_bytes));
            for body in &bodies {
                handle.append(vec![body.clone()]).await.unwrap();
            }
            let positions = handle.positions();
            handle.close().await;
            let undisturbed = folder.entries();
            for _ in 0..runs {
                run(&folder, archiving(segment_bytes), needed).await;
            }
            (undisturbed, positions)
        });
        let entries = folder.entries();
        prop_assert_eq!(&entries[..undisturbed.len()], &undisturbed[..]);
        prop_assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq));
        for from in 1..=entries.len() {
            let read: Vec<_> = SpoolReader::open(&folder.path().join("spool"), from as u64).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(&read[..], &entries[from - 1..]);
        }
        let report = verify_spool(&folder.open());
        prop_assert!(report.is_good() && report.records == entries.len() as u64, "{:?}", report);
        let (handle, _) = start(&folder.open(), archiving(segment_bytes));
        prop_assert_eq!(handle.positions(), positions);
    }
}

#[tokio::test]
async fn a_crash_at_any_point_of_archiving_doubles_and_loses_nothing() {
    let folder = Folder::new();
    filled_spool(&folder, 12, small_segments(150)).await;
    let segments: Vec<_> = folder.segments("spool").into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let files = archived(&folder).await;
    assert!(files.len() >= 3);
    let whole = folder.entries();
    let (bytes, first) = &segments[0];
    let target = &files[0];
    let compressed = fs::read(target).unwrap();

    // Renamed, and the segment not yet removed.
    fs::write(first, bytes).unwrap();
    assert_eq!(folder.entries(), whole);
    assert_eq!(verify_spool(&folder.open()).records, whole.len() as u64);
    // Being written aside, at any length.
    fs::remove_file(target).unwrap();
    for length in [0, 1, compressed.len() / 2, compressed.len()] {
        fs::write(target.with_extension("tmp"), &compressed[..length]).unwrap();
        assert_eq!(folder.entries(), whole);
    }
    drop(folder.open());
    assert!(!target.with_extension("tmp").exists(), "what was half written is tidied up at the start");
    fs::write(target, &compressed).unwrap();
    assert!(first.exists());
    assert!(archived(&folder).await.starts_with(&files), "the next run goes on");
    assert!(!first.exists() && fs::read(target).unwrap() == compressed);
    assert_eq!(folder.entries()[..whole.len()], whole);
}

#[tokio::test]
async fn a_damaged_archive_file_is_named_and_costs_nothing_else() {
    let folder = Folder::in_memory();
    filled_spool(&folder, 12, small_segments(150)).await;
    let file = &archived(&folder).await[1];
    let (whole, good) = (folder.entries(), fs::read(file).unwrap());
    let first_of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let within = first_of(file)..first_of(&folder.segments("spool/archive")[2]);
    let check = |bytes: &[u8], must_be_found: bool| {
        fs::write(file, bytes).unwrap();
        let (mut read, mut wrong) = (Vec::new(), Vec::new());
        for entry in SpoolReader::open(&folder.path().join("spool"), 0).unwrap() {
            entry.map_or_else(|error| wrong.push(error), |entry| read.push(entry));
        }
        let missing: Vec<u64> = whole.iter().filter(|entry| !read.contains(entry)).map(|entry| entry.seq).collect();
        assert!(missing.iter().all(|seq| within.contains(seq)) && read.len() + missing.len() == whole.len(), "{missing:?} {wrong:?}");
        assert_eq!(missing.is_empty(), wrong.is_empty(), "{missing:?} {wrong:?}");
        assert!(!must_be_found || !wrong.is_empty());
        assert!(wrong.iter().all(|error| error.to_string().contains(file.to_str().unwrap())), "{wrong:?}");
        assert_eq!(verify_spool(&folder.open()).is_good(), wrong.is_empty());
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes, false);
        check(&good[..at], at + 4 < good.len());
    }
    let (status, text) = opmas(&["store", "verify"], &folder.path());
    assert!(status != 0 && text.contains(file.to_str().unwrap()), "{text}");
    check(&good, false);
}

#[tokio::test]
async fn the_archive_is_bounded_by_age_and_by_size() {
    let folder = Folder::new();
    filled_spool(&folder, 12, small_segments(150)).await;
    let files = archived(&folder).await;
    let old = |path: &PathBuf| File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(90_000)).unwrap();
    files[..2].iter().for_each(old);
    run(&folder, archiving(1_000_000), u64::MAX).await;
    assert_eq!(folder.segments("spool/archive")[0], files[2], "`keep` is a day");
    let oldest = folder.entries()[0].seq;
    let gone = SpoolReader::open(&folder.path().join("spool"), 1).err().unwrap();
    assert!(matches!(gone, ReadError::Gone { asked: 1, oldest: o, .. } if o == oldest), "{gone}");

    let size = fs::metadata(files.last().unwrap()).unwrap().len();
    run(&folder, SpoolConfig { archive_bytes: size, ..archiving(1_000_000) }, u64::MAX).await;
    assert_eq!(folder.segments("spool/archive"), files[files.len() - 1..]);
    assert!(verify_spool(&folder.open()).is_good());
    run(&folder, SpoolConfig { archive_bytes: 0, ..archiving(0) }, u64::MAX).await;
    assert!(folder.segments("spool/archive").is_empty());
    let (seqs, errors) = folder.survivors();
    assert!(errors.is_empty() && seqs.is_sorted(), "{errors:?}");
}

#[tokio::test]
async fn a_long_keep_archives_what_is_older_than_a_day() {
    let folder = Folder::new();
    filled_spool(&folder, 12, small_segments(150)).await;
    let segments = folder.segments("spool");
    let old = |path: &PathBuf| File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(90_000)).unwrap();
    segments[..2].iter().for_each(old);
    let config = SpoolConfig { keep: Span::secs(30 * 86_400), ..small_segments(1_000_000) };
    for _ in 0..2 {
        run(&folder, config.clone(), u64::MAX).await;
    }
    assert_eq!(folder.segments("spool/archive").len(), 2);
    assert_eq!(folder.entries().len(), 14);
}

#[tokio::test]
async fn a_reader_goes_on_while_its_segments_are_archived() {
    let folder = Folder::new();
    filled_spool(&folder, 12, small_segments(150)).await;
    let mut reader = SpoolReader::open(&folder.path().join("spool"), 0).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().seq, 1);
    archived(&folder).await;
    let rest: Vec<u64> = reader.by_ref().map(|entry| entry.unwrap().seq).collect();
    assert!(rest.iter().copied().eq(2..=*rest.last().unwrap()) && rest.len() >= 12, "{rest:?}");
}

#[tokio::test]
async fn places_of_the_archive_are_not_given_again_when_the_segments_behind_it_are_lost() {
    let folder = Folder::new();
    filled_spool(&folder, 12, small_segments(150)).await;
    archived(&folder).await;
    let newest = folder.segments("spool").into_iter().find(|path| path.is_file()).unwrap();
    fs::remove_file(newest).unwrap();
    let last = folder.entries().last().unwrap().seq;
    let (handle, recovery) = start(&folder.open(), archiving(300));
    assert_eq!((recovery.last, handle.durable()), (last, last));
    assert_eq!(handle.append(vec![pushed("x")]).await.unwrap().first, last + 1);
    handle.close().await;
    let (seqs, errors) = folder.survivors();
    assert!(seqs.into_iter().eq(1..=last + 1) && errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn a_backup_takes_the_archive_along_with_its_age() {
    let folder = Folder::new();
    filled_spool(&folder, 12, small_segments(150)).await;
    let files = archived(&folder).await;
    let to = folder.temporary.path().join("copy");
    let (status, text) = opmas(&["store", "backup", to.to_str().unwrap()], &folder.path());
    assert_eq!(status, 0, "{text}");
    let entries: Vec<_> = SpoolReader::open(&to.join("spool"), 0).unwrap().map(Result::unwrap).collect();
    assert!(entries == folder.entries() && raw(&entries[0]) == "entry 1");
    let copy = to.join("spool/archive").join(files[0].file_name().unwrap());
    let modified = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(modified(&copy), modified(&files[0]));
}
