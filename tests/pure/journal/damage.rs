//! Truncation and flipped bits, at every byte.

use std::fs;

use opmas::journal::{DataDir, ReadError, Spool, SpoolConfig, verify_ledger, verify_spool};
use tokio::sync::mpsc;

use super::{Folder, copy_folder, filled_ledger, filled_spool, pushed, small_segments, start};

/// `OPMSPOOL`, version 2, …: see the format in the source.
#[tokio::test]
async fn segment_files_begin_with_stable_bytes() {
    let folder = Folder::new();
    filled_spool(&folder, 1, SpoolConfig::default()).await;
    filled_ledger(&folder, &[1]).await;
    let spool = folder.segments("spool").remove(0);
    assert_eq!(spool.file_name().unwrap(), "00000000000000000001.spool");
    let bytes = fs::read(spool).unwrap();
    assert_eq!(bytes[..24], *b"OPMSPOOL\x02\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0");
    let salt = &bytes[32..40];
    assert_eq!(bytes[40], 0, "no positions");
    assert_eq!(bytes[41..45], crc32fast::hash(&bytes[..41]).to_le_bytes());
    let frame = &bytes[45..];
    assert_eq!(frame[..4], u32::try_from(frame.len() - 24).unwrap().to_le_bytes());
    assert_eq!(frame[4..16], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(frame[16..20], crc32fast::hash(&[salt, &frame[24..]].concat()).to_le_bytes());
    assert_eq!(frame[20..24], crc32fast::hash(&[salt, &frame[..20]].concat()).to_le_bytes());

    let ledger = folder.segments("ledger").remove(0);
    assert_eq!(ledger.file_name().unwrap(), "00000000000000000001.ledger");
    let bytes = fs::read(ledger).unwrap();
    assert_eq!(bytes[..24], *b"OPMLEDGR\x02\0\0\0\x20\0\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(bytes[40..72], [0; 32], "nothing comes before the first record");
}

#[tokio::test]
async fn o3_a_spool_that_is_cut_at_any_byte_opens_with_what_was_whole() {
    let folder = Folder::in_memory();
    filled_spool(&folder, 5, small_segments(200)).await;
    let files = folder.segments("spool");
    let last = files.last().unwrap();
    let whole = fs::read(last).unwrap();
    let before: u64 = last.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap() - 1;
    assert!(files.len() > 1 && before > 0);
    let mut lasts = Vec::new();
    for len in 0..=whole.len() {
        fs::write(last, &whole[..len]).unwrap();
        let data = folder.open();
        if len > 45 {
            assert!(verify_spool(&data).is_good(), "an unfinished write is no fault");
        }
        let (handle, recovery) = start(&data, small_segments(200));
        assert!((before..=5).contains(&recovery.last) && recovery.broken.is_empty());
        handle.close().await;
        let seqs: Vec<_> = folder.entries().iter().map(|e| e.seq).collect();
        assert!(seqs.iter().copied().eq(1..=recovery.last), "cut at {len}: {seqs:?}");
        lasts.push(recovery.last);
        if last.exists() {
            assert_eq!(recovery.torn.iter().map(|t| t.offset + t.bytes).sum::<u64>(), if recovery.torn.is_empty() { 0 } else { len as u64 });
        }
    }
    assert!(lasts.is_sorted() && lasts.last() == Some(&5));
    let (handle, _) = start(&folder.open(), small_segments(200));
    assert_eq!(handle.append(vec![pushed("x")]).await.unwrap().first, 6);
}

#[tokio::test]
async fn a_flipped_bit_at_any_byte_of_the_spool_is_found_and_costs_nothing_else() {
    let folder = Folder::in_memory();
    filled_spool(&folder, 6, small_segments(300)).await;
    let data = DataDir::open_read_only(&folder.path()).unwrap();
    let files = folder.segments("spool");
    assert!(files.len() > 1);
    for file in files {
        let whole = fs::read(&file).unwrap();
        let first: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&file, &bytes).unwrap();
            let report = verify_spool(&data);
            assert!(!report.is_good(), "{}:{at}", file.display());
            assert!(report.wrong[0].starts_with(&format!("{}:", file.display())), "{:?}", report.wrong);
            let (seqs, errors) = folder.survivors();
            if at >= 45 {
                assert_eq!(seqs.len(), 5, "{}:{at}: {seqs:?} {errors:?}", file.display());
            } else {
                assert!(!seqs.contains(&first) && errors.len() == 1 && seqs.len() >= 2);
            }
        }
        fs::write(&file, &whole).unwrap();
    }
    assert!(verify_spool(&data).is_good());
}

#[tokio::test]
async fn a_flipped_bit_at_any_byte_of_the_ledger_is_found() {
    let folder = Folder::in_memory();
    filled_ledger(&folder, &[1, 2]).await;
    let data = DataDir::open_read_only(&folder.path()).unwrap();
    let file = folder.segments("ledger").remove(0);
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&file, &bytes).unwrap();
        let report = verify_ledger(&data, None);
        assert!(!report.is_good() && report.wrong[0].starts_with(&format!("{}:", file.display())), "{at}: {:?}", report.wrong);
    }
    fs::write(&file, &whole).unwrap();
    assert!(verify_ledger(&data, None).is_good());
}

#[tokio::test]
async fn damage_in_front_of_whole_entries_is_reported_and_never_cut() {
    let folder = Folder::new();
    filled_spool(&folder, 5, SpoolConfig::default()).await;
    let file = folder.segments("spool").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|w| w == b"entry 3").unwrap();
    bytes[at - 60..at + 7].fill(0);
    fs::write(&file, &bytes).unwrap();
    let (handle, recovery) = start(&folder.open(), SpoolConfig::default());
    assert!(matches!(recovery.broken[..], [ReadError::Broken { from: 3, to: 3, .. }]), "{:?}", recovery.broken);
    assert_eq!((recovery.last, recovery.torn.len()), (5, 0));
    handle.append(vec![pushed("after")]).await.unwrap();
    handle.close().await;
    assert_eq!(folder.survivors().0, [1, 2, 4, 5, 6]);
    assert!(fs::read(&file).unwrap().starts_with(&bytes));
}

#[tokio::test]
async fn log_text_that_looks_like_a_frame_is_never_taken_for_one() {
    let folder = Folder::new();
    filled_spool(&folder, 3, SpoolConfig::default()).await;
    let file = folder.segments("spool").remove(0);
    let bytes = fs::read(&file).unwrap();
    // The attacker knows the format, and what a true frame with a later place looks like, but not this spool's salt.
    let other = Folder::new();
    filled_spool(&other, 9, SpoolConfig::default()).await;
    let frames = fs::read(other.segments("spool").remove(0)).unwrap();
    let (handle, _) = start(&folder.open(), SpoolConfig::default());
    handle.append(vec![super::record(None, &frames[45..])]).await.unwrap();
    handle.close().await;
    let mut damaged = fs::read(&file).unwrap();
    damaged[bytes.len() + 30] ^= 1;
    fs::write(&file, damaged).unwrap();
    let (handle, recovery) = start(&folder.open(), SpoolConfig::default());
    assert_eq!((recovery.last, recovery.broken.len(), recovery.torn.len()), (3, 0, 1), "{recovery:?}");
    handle.close().await;
    assert_eq!(folder.survivors().0, [1, 2, 3]);
}

#[tokio::test]
async fn a_lost_segment_is_a_gap_that_is_named() {
    let folder = Folder::new();
    filled_spool(&folder, 6, small_segments(150)).await;
    let files = folder.segments("spool");
    assert_eq!(files.len(), 3);
    fs::remove_file(&files[1]).unwrap();
    let (seqs, errors) = folder.survivors();
    assert_eq!(seqs, [1, 2, 5, 6]);
    assert!(matches!(&errors[..], [ReadError::Broken { file, from: 3, to: 4, .. }] if *file == files[0]), "{errors:?}");
}

#[tokio::test]
async fn a_segment_of_a_newer_format_is_refused_and_one_with_a_damaged_header_too() {
    let folder = Folder::new();
    filled_spool(&folder, 2, SpoolConfig::default()).await;
    let file = folder.segments("spool").remove(0);
    let whole = fs::read(&file).unwrap();
    let mut newer = whole.clone();
    newer[8] = 3;
    let crc = crc32fast::hash(&newer[..41]).to_le_bytes();
    newer[41..45].copy_from_slice(&crc);
    fs::write(&file, &newer).unwrap();
    let refusal = || Spool::open(&folder.open(), SpoolConfig::default()).err().unwrap().to_string();
    assert!(refusal().contains("written by a newer opmas (format 3"), "{}", refusal());
    newer[8] = 1;
    fs::write(&file, &newer).unwrap();
    assert!(refusal().contains("header of this segment is damaged") && refusal().contains("move this file out"), "{}", refusal());
    assert_eq!(fs::read(&file).unwrap(), newer, "nothing was changed");
}

#[tokio::test]
async fn a_spool_of_an_older_format_is_read_and_gone_on_with_in_a_new_segment() {
    let folder = Folder::new();
    filled_spool(&folder, 2, SpoolConfig::default()).await;
    let file = folder.segments("spool").remove(0);
    let mut older = fs::read(&file).unwrap();
    older[8] = 1;
    let crc = crc32fast::hash(&older[..41]).to_le_bytes();
    older[41..45].copy_from_slice(&crc);
    fs::write(&file, &older).unwrap();
    let (handle, recovery) = start(&folder.open(), SpoolConfig::default());
    assert_eq!(recovery.last, 2);
    handle.append(vec![pushed("new")]).await.unwrap();
    handle.close().await;
    assert_eq!(fs::read(&file).unwrap(), older);
    let seqs: Vec<_> = folder.entries().iter().map(|entry| entry.seq).collect();
    assert_eq!((seqs, folder.segments("spool").len()), (vec![1, 2, 3], 2));
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_tidied_up() {
    let folder = Folder::new();
    filled_spool(&folder, 2, SpoolConfig::default()).await;
    let aside = folder.path().join("spool/00000000000000000003.tmp");
    fs::write(&aside, "OPM").unwrap();
    let copy = Folder::new();
    copy_folder(&folder.path(), &copy.path());
    let (_, recovery) = Spool::open(&copy.open(), SpoolConfig::default()).unwrap();
    assert_eq!((recovery.last, recovery.segments), (2, 1));
    assert_eq!(copy.segments("spool").len(), 1);
}

#[tokio::test]
async fn bytes_behind_the_end_of_an_older_segment_are_passed_over_when_nothing_is_missing() {
    let folder = Folder::new();
    filled_spool(&folder, 6, small_segments(300)).await;
    let older = folder.segments("spool").remove(0);
    let mut bytes = fs::read(&older).unwrap();
    // What a failed sync can leave: its entries were written anew to the next segment.
    bytes.extend(vec![0xFF; 333]);
    fs::write(&older, bytes).unwrap();
    assert_eq!(folder.survivors().0, [1, 2, 3, 4, 5, 6]);
    let (spool, _) = Spool::open(&folder.open(), small_segments(300)).unwrap();
    drop(spool.start(mpsc::channel(1).0).unwrap());
    assert!(verify_spool(&DataDir::open_read_only(&folder.path()).unwrap()).is_good());
}
