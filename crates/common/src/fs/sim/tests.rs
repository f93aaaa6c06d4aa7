use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::entropy::SmallEntropy;
use crate::fs::RealFs;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn read(fs: &dyn FileSystem, name: &str) -> Option<Vec<u8>> {
    let file = fs.open(path(name), OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// Every outcome of a crash that `seeds` tries find.
fn outcomes(prepare: impl Fn(&SimFs), name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let prepared = || {
        let fs = SimFs::new();
        prepare(&fs);
        fs
    };
    outcomes_of(prepared, name)
}

fn outcomes_of(prepared: impl Fn() -> SimFs, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400).map(|seed| read(&prepared().crash(&SmallEntropy::seeded(seed)), name)).collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    let found = outcomes(
        |fs| {
            fs.create_dir_all(path("/d")).unwrap();
            fs.sync_dir(path("/")).unwrap();
            let file = fs.open(path("/d/a"), OpenMode::CreateNew).unwrap();
            fs.sync_dir(path("/d")).unwrap();
            file.write_all_at(b"hello", 0).unwrap();
            file.sync_data().unwrap();
        },
        "/d/a",
    );
    assert_eq!(found, BTreeSet::from([Some(b"hello".to_vec())]));
}

#[test]
fn a_name_that_was_not_synced_may_be_lost_though_its_data_was() {
    let found = outcomes(
        |fs| {
            let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
            file.write_all_at(b"hello", 0).unwrap();
            file.sync_all().unwrap();
        },
        "/a",
    );
    assert_eq!(found, BTreeSet::from([None, Some(b"hello".to_vec())]));
}

#[test]
fn unsynced_writes_are_lost_torn_reordered_or_read_as_zeroes() {
    let found = outcomes(
        |fs| {
            let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
            fs.sync_dir(path("/")).unwrap();
            file.write_all_at(&[1; 1024], 0).unwrap();
            file.write_all_at(&[2; 1024], 1024).unwrap();
        },
        "/a",
    );
    let has = |bytes: &[(u8, usize)]| found.contains(&Some(bytes.iter().flat_map(|(byte, len)| vec![*byte; *len]).collect()));
    assert!(!found.contains(&None));
    assert!(has(&[]) && has(&[(1, 1024), (2, 1024)]), "nothing, everything");
    assert!(has(&[(1, 1024)]) && has(&[(1, 512)]) && has(&[(1, 1024), (2, 512)]), "torn");
    assert!(has(&[(0, 1024), (2, 1024)]) && has(&[(0, 512), (1, 512), (2, 1024)]), "reordered");
    assert!(has(&[(0, 2048)]) && has(&[(1, 1024), (0, 1024)]), "zero-filled");
}

#[test]
fn a_crash_leaves_the_old_file_or_the_new_one_after_a_rename() {
    let prepare = |fs: &SimFs, sync: bool| {
        for (name, bytes) in [("/a", b"old"), ("/b", b"new")] {
            let file = fs.open(path(name), OpenMode::CreateNew).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file.sync_all().unwrap();
        }
        fs.sync_dir(path("/")).unwrap();
        fs.rename(path("/b"), path("/a")).unwrap();
        if sync {
            fs.sync_dir(path("/")).unwrap();
        }
    };
    assert_eq!(outcomes(|fs| prepare(fs, false), "/a"), BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
    assert_eq!(outcomes(|fs| prepare(fs, true), "/a"), BTreeSet::from([Some(b"new".to_vec())]));
    assert_eq!(outcomes(|fs| prepare(fs, true), "/b"), BTreeSet::from([None]));
}

#[test]
fn a_truncation_that_was_not_synced_may_come_undone() {
    let prepare = |fs: &SimFs| {
        let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        file.sync_all().unwrap();
        fs.sync_dir(path("/")).unwrap();
        file.set_len(2).unwrap();
    };
    assert_eq!(outcomes(prepare, "/a"), BTreeSet::from([Some(b"he".to_vec()), Some(b"hello".to_vec())]));
}

#[test]
fn a_removed_directory_may_come_back_in_part() {
    let prepare = |fs: &SimFs| {
        fs.create_dir_all(path("/d")).unwrap();
        fs.sync_dir(path("/")).unwrap();
        for name in ["/d/a", "/d/b"] {
            fs.open(path(name), OpenMode::CreateNew).unwrap();
        }
        fs.sync_dir(path("/d")).unwrap();
        fs.remove_dir_all(path("/d")).unwrap();
    };
    assert_eq!(outcomes(prepare, "/d/a"), BTreeSet::from([None, Some(vec![])]));
    assert_eq!(outcomes(prepare, "/d/b"), BTreeSet::from([None, Some(vec![])]));
}

#[test]
fn after_a_kill_every_write_is_there_and_a_later_crash_may_take_it() {
    let fs = SimFs::new();
    let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
    fs.sync_dir(path("/")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let _held = fs.lock(path("/lock")).unwrap();
    let next = fs.kill();
    assert_eq!(read(&next, "/a"), Some(b"x".to_vec()));
    assert!(next.lock(path("/lock")).is_ok(), "the dead hold no locks");
    assert!(file.write_all_at(b"y", 0).is_err() && fs.read_dir(path("/")).is_err());
    let killed = || {
        let fs = SimFs::new();
        fs.open(path("/a"), OpenMode::CreateNew).unwrap().write_all_at(b"x", 0).unwrap();
        fs.sync_dir(path("/")).unwrap();
        fs.kill()
    };
    let found = outcomes_of(killed, "/a");
    assert!(found.contains(&Some(vec![])) && found.contains(&Some(b"x".to_vec())), "{found:?}");
}

#[test]
fn a_failed_sync_marks_the_pages_clean_as_linux_does() {
    for seed in 0..50 {
        let fs = SimFs::new();
        let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
        fs.sync_dir(path("/")).unwrap();
        file.write_all_at(b"lost", 0).unwrap();
        fs.inject(SimFault::Sync, "a", 1);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        assert!(file.sync_data().is_ok(), "the trap of I38");
        assert_eq!(read(&fs, "/a"), Some(b"lost".to_vec()));
        assert_ne!(read(&fs.crash(&SmallEntropy::seeded(seed)), "/a"), Some(b"lost".to_vec()));
    }
}

#[test]
fn faults_hit_the_named_path_and_pass() {
    let fs = SimFs::new();
    let (a, b) = (fs.open(path("/a"), OpenMode::CreateNew).unwrap(), fs.open(path("/b"), OpenMode::CreateNew).unwrap());
    a.write_all_at(b"1", 0).unwrap();
    fs.inject(SimFault::Read, "/a", 2);
    fs.inject(SimFault::Write, "/b", 1);
    fs.inject(SimFault::Name, "/c", 1);
    let mut buf = [0];
    assert!(a.read_at(&mut buf, 0).is_err() && a.read_at(&mut buf, 0).is_err() && a.read_at(&mut buf, 0).is_ok());
    assert!(b.write_all_at(b"1", 0).is_err() && b.write_all_at(b"1", 0).is_ok());
    assert!(fs.rename(path("/a"), path("/c")).is_err() && fs.rename(path("/a"), path("/c")).is_ok());
}

#[test]
fn a_full_disk_takes_what_fits_then_nothing() {
    let fs = SimFs::new();
    fs.set_capacity(Some(10));
    let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
    assert_eq!(file.write_vectored_at(&[IoSlice::new(&[1; 8]), IoSlice::new(&[2; 8])], 0).unwrap(), 10);
    assert_eq!(file.write_all_at(b"x", 10).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.allocate(11).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(file.write_all_at(&[3; 10], 0).is_ok(), "what is allocated can be written");
    assert_eq!(fs.space(path("/")).unwrap(), DiskSpace { total: 10, available: 0 });
    file.set_len(4).unwrap();
    fs.open(path("/b"), OpenMode::CreateNew).unwrap().allocate(6).unwrap();
    assert_eq!(fs.space(path("/")).unwrap().available, 0);
    fs.remove_file(path("/a")).unwrap();
    assert_eq!(fs.space(path("/")).unwrap().available, 4);
    assert!(file.write_all_at(&[3; 4], 0).is_ok(), "an open file lives on without its name");
}

#[test]
fn short_writes_and_bit_flips() {
    let fs = SimFs::new();
    fs.set_short_writes(true);
    let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
    assert_eq!(file.write_vectored_at(&[IoSlice::new(&[0; 100])], 0).unwrap(), 50);
    file.write_all_at(&[0; 100], 0).unwrap();
    fs.flip_bit(path("/a"), 99, 3).unwrap();
    assert_eq!(read(&fs, "/a").unwrap()[99], 8);
    assert_eq!(fs.flip_bit(path("/a"), 100, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn the_power_fails_at_the_operation_asked_for() {
    for at in 1..=4 {
        let fs = SimFs::new();
        fs.crash_at(at);
        let run = || -> io::Result<()> {
            let file = fs.open(path("/a"), OpenMode::CreateNew)?;
            fs.sync_dir(path("/"))?;
            file.write_all_at(b"x", 0)?;
            file.sync_data()
        };
        assert!(run().is_err(), "{at}");
        assert_eq!(fs.operations(), at);
        assert!(fs.is_dead());
        let after = fs.crash(&SmallEntropy::seeded(1));
        assert!(!after.is_dead() && after.read_dir(path("/")).is_ok());
    }
}

#[test]
fn the_same_entropy_gives_the_same_survivors() {
    let run = |seed| {
        let fs = SimFs::new();
        for i in 0..20 {
            let file = fs.open(path(&format!("/f{i}")), OpenMode::CreateNew).unwrap();
            file.write_all_at(&[i; 3000], u64::from(i) * 100).unwrap();
        }
        fs.crash(&SmallEntropy::seeded(seed)).dump()
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    assert!((0..20).map(run).collect::<BTreeSet<_>>().len() > 5);
}

#[derive(Clone, Debug)]
enum Step {
    Open(usize, OpenMode),
    Write(usize, u64, usize),
    SetLen(usize, u64),
    Allocate(usize, u64),
    MakeDir(usize),
    Rename(usize, usize),
    Remove(usize),
    RemoveDir(usize),
}

const NAMES: [&str; 6] = ["a", "b", "d", "d/a", "d/e/x", "d/e"];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let mode = prop_oneof![Just(OpenMode::Read), Just(OpenMode::ReadWrite), Just(OpenMode::CreateNew), Just(OpenMode::Truncate)];
    prop_oneof![
        3 => (name.clone(), mode).prop_map(|(n, m)| Step::Open(n, m)),
        4 => (name.clone(), 0u64..9000, 0usize..5000).prop_map(|(n, p, l)| Step::Write(n, p, l)),
        1 => (name.clone(), 0u64..9000).prop_map(|(n, l)| Step::SetLen(n, l)),
        1 => (name.clone(), 1u64..9000).prop_map(|(n, l)| Step::Allocate(n, l)),
        2 => name.clone().prop_map(Step::MakeDir),
        2 => (name.clone(), name.clone()).prop_map(|(f, t)| Step::Rename(f, t)),
        1 => name.clone().prop_map(Step::Remove),
        1 => name.prop_map(Step::RemoveDir),
    ]
}

/// One step on either file system, and what can be seen of its outcome.
fn apply(fs: &dyn FileSystem, root: &Path, step: &Step) -> Result<Vec<u8>, ()> {
    let at = |name: &usize| root.join(NAMES[*name]);
    let open = |name: &usize| fs.open(&at(name), OpenMode::ReadWrite);
    let done = match step {
        // Linux opens a directory for reading as well; nobody should.
        Step::Open(name, _) if fs.read_dir(&at(name)).is_ok() => return Err(()),
        Step::Open(name, mode) => fs.open(&at(name), *mode).and_then(|file| file.len()).map(drop),
        Step::Write(name, pos, len) => open(name).and_then(|file| file.write_all_at(&vec![(*pos % 251) as u8; *len], *pos)),
        Step::SetLen(name, len) => open(name).and_then(|file| file.set_len(*len)),
        Step::Allocate(name, len) => open(name).and_then(|file| file.allocate(*len)),
        Step::MakeDir(name) => fs.create_dir_all(&at(name)),
        Step::Rename(from, to) => fs.rename(&at(from), &at(to)),
        Step::Remove(name) => fs.remove_file(&at(name)),
        Step::RemoveDir(name) => fs.remove_dir_all(&at(name)),
    };
    done.map_err(drop)?;
    let mut seen = Vec::new();
    for name in NAMES {
        if fs.exists(&root.join(name)) {
            seen.extend_from_slice(name.as_bytes());
        }
        if let Ok(entries) = fs.read_dir(&root.join(name)) {
            let names: BTreeSet<_> = entries.into_iter().map(|entry| format!("{} {} {};", entry.name, entry.is_dir, entry.len)).collect();
            seen.extend(names.into_iter().flat_map(String::into_bytes));
        } else if let Ok(file) = fs.open(&root.join(name), OpenMode::Read) {
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            seen.extend(bytes);
        }
    }
    Ok(seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One contract: without faults the simulated file system does what the machine's does.
    #[test]
    fn behaves_as_the_real_one(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimFs::new();
        for step in &steps {
            let real = apply(&RealFs, dir.path(), step);
            prop_assert_eq!(apply(&sim, path("/"), step), real, "{:?}", step);
        }
    }
}
