//! What is wrong before anything is fetched, and how it is said: one line with cause and remedy, other files go on, and the exit code tells.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use crate::support::nginx::Nginx;
use crate::support::{Place, Said, content, sha256};

#[test]
fn an_empty_list_is_wrong_usage() {
    let place = Place::new();
    std::fs::write(place.path("list"), "\n# nothing\n").unwrap();
    for arguments in [&[][..], &["-i", place.path("list").to_str().unwrap()]] {
        let said = place.fetch(arguments);
        assert_eq!((said.code, said.complaint().contains("nothing to fetch; try: ")), (2, true), "{}", said.err);
    }
    let said = place.fetch(&["-i", "/no/such/list"]);
    assert!(said.code == 2 && said.complaint().contains("cannot read the list '/no/such/list': No such file"), "{}", said.err);
    assert_eq!(place.fetch(&["--jobs", "none", "http://h/a"]).code, 2);
}

#[test]
fn whatever_is_wrong_with_one_line_the_others_go_on() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("good", b"good");
    std::fs::create_dir(place.path("folder")).unwrap();
    let long = "x".repeat(300);
    let wrong = [
        ("nonsense".to_owned(), "malformed address: it has no scheme", "failed"),
        ("http://[::1/x".to_owned(), "malformed address: invalid IPv6 address", "failed"),
        ("ftp://h/x".to_owned(), "the scheme 'ftp' is not supported", "unsupported"),
        (nginx.http("a%2f..%2f..%2fb"), "is not the name of a file in the directory", "failed"),
        (nginx.http(""), "the address gives no file name", "failed"),
        (nginx.http(&long), "the name is too long: 300 bytes", "failed"),
        (format!("{} - folder", nginx.http("good?1")), "'folder' exists and is no file", "failed"),
        (format!("{} 123 x", nginx.http("good?2")), "'123' is no SHA-256", "failed"),
        (format!("{} - ../x", nginx.http("good?3")), "is not the name of a file", "failed"),
        (nginx.http("missing"), "the server answered 404 (Not Found)", "failed"),
    ];
    let list: String = wrong.iter().map(|(line, ..)| format!("{line}\n")).collect::<String>() + &nginx.http("good");
    let mut child =
        place.command(&["--json", "-i", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, 1);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for (at, (line, cause, outcome)) in wrong.iter().enumerate() {
        let file = &json["files"][at];
        assert!(file["error"].as_str().unwrap().contains(cause), "{line}: {file}");
        assert_eq!(&file["outcome"], outcome, "{line}");
        assert!(said.err.lines().any(|told| told.contains(cause) && told.contains("; try: ")), "{line}: {}", said.err);
    }
    assert_eq!(json["files"][wrong.len()]["outcome"], "fetched");
    assert_eq!(place.names(), ["folder", "good"]);
}

#[test]
fn a_directory_that_cannot_be_written_into_is_told() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", b"a");
    std::fs::write(place.path("file"), "").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fetch"));
    let said = Said::of(&command.arg("--dir").arg(place.path("file/below")).arg(nginx.http("a")).output().unwrap());
    assert!(
        said.code == 1
            && said.complaint().contains("cannot write into '")
            && said.complaint().contains("try: another directory with --dir"),
        "{}",
        said.err
    );
    if nix::unistd::geteuid().is_root() {
        // Root may write anywhere, so this is somebody else, with a copy of the program where they may read it.
        let program = place.path("fetch");
        std::fs::copy(env!("CARGO_BIN_EXE_fetch"), &program).unwrap();
        std::fs::set_permissions(place.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = std::process::Command::new(program);
        let said = Said::of(&command.arg("--dir").arg(place.folder.path()).arg(nginx.http("a")).uid(65534).gid(65534).output().unwrap());
        assert!(said.code == 1 && said.complaint().contains("Permission denied"), "{}", said.err);
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_no_wrong_file() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("large", &content(4 << 20, 1));
    nginx.file("good", b"good");
    // A limit of the process stands for that of the disk: both refuse a write that is too large, and this one needs no file system of its own.
    let command = place.command(&[&nginx.http("large"), &nginx.http("good")]);
    let limited = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
    let mut shell = std::process::Command::new("bash");
    shell.arg("-c").arg(limited).arg(command.get_program()).args(command.get_args());
    let said = Said::of(&shell.output().unwrap());
    assert!(said.code == 1 && said.complaint().contains("no space is left for 4194304 bytes; try: free space"), "{}", said.err);
    assert_eq!(place.names(), ["good"]);
}

/// A run into a file system of its own that is mounted with these options, seen by nobody else; what is in it afterwards comes last on standard output.
fn fetch_into_mounted(options: &str, arguments: &[&str]) -> (Said, Vec<String>) {
    let place = Place::new();
    let mounted = "mount -t tmpfs -o \"$1\" none \"$2\" || exit 99; shift; into=$1; shift; \"$@\"; code=$?; echo AFTERWARDS; ls -A \"$into\"; exit $code";
    let command = place.command(arguments);
    let mut unshared = std::process::Command::new("unshare");
    unshared.args(["--mount", "sh", "-c", mounted, "sh", options]).arg(place.folder.path());
    unshared.arg(command.get_program()).args(command.get_args());
    let mut said = Said::of(&unshared.stdin(Stdio::null()).output().unwrap());
    assert_ne!(said.code, 99, "{}", said.err);
    let (out, names) = said.out.split_once("AFTERWARDS\n").unwrap();
    let names = names.lines().map(str::to_owned).collect();
    said.out = out.to_owned();
    (said, names)
}

#[test]
fn a_disk_that_is_full_or_read_only_is_told_and_the_others_go_on() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root may mount: what a limit and another user show stands for it");
        return;
    }
    let nginx = Nginx::start();
    nginx.file("large", &content(4 << 20, 1));
    nginx.file("untold.txt", &vec![b'x'; 3 << 20]);
    nginx.file("good", b"good");
    // One whose size is known before, one that fills the disk, and one that fits when that has been taken away again.
    let urls = [nginx.http("large"), nginx.http("chunked/untold.txt"), nginx.http("good")];
    let (said, names) = fetch_into_mounted("size=2m", &["-j", "1", &urls[0], &urls[1], &urls[2]]);
    assert_eq!((said.code, names), (1, vec!["good".to_owned()]), "{}", said.err);
    let complaints: Vec<&str> =
        said.err.lines().filter(|line| line.contains("; try: free space, or another directory with --dir")).collect();
    assert!(complaints.len() == 2 && complaints[0].contains("no space is left for 4194304 bytes"), "{}", said.err);
    let (said, names) = fetch_into_mounted("ro", &[&urls[2]]);
    assert_eq!((said.code, names), (1, Vec::new()), "{}", said.err);
    assert!(
        said.complaint().contains("Read-only file system") && said.complaint().contains("try: another directory with --dir"),
        "{}",
        said.err
    );
}

#[test]
fn a_look_at_a_large_file_is_given_up_by_ctrl_c() {
    let place = Place::new();
    // Of holes: to read all of it takes half a minute.
    std::fs::File::create(place.path("a")).unwrap().set_len(64 << 30).unwrap();
    let mut child =
        place.command(&["http://127.0.0.1:1/a", "--sha256", &sha256(b"")]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGINT).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(place.names(), ["a"]);
}

#[test]
fn files_that_exist_stay_unless_it_is_said_otherwise() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", b"new");
    std::fs::write(place.path("a"), "old").unwrap();
    let url = nginx.http("a");
    let refused = place.fetch(&[&url]);
    assert!(refused.code == 1 && refused.complaint().contains("'a' exists; try: --overwrite or --skip-existing"), "{}", refused.err);
    assert_eq!(place.fetch(&["--skip-existing", &url]).code, 0);
    let mismatch = place.fetch(&["--skip-existing", &url, "--sha256", &sha256(b"new")]);
    assert_eq!((mismatch.code, place.read("a")), (3, b"old".to_vec()), "{}", mismatch.err);
    assert!(nginx.asked().is_empty());
    place.fetched(&["--overwrite", &url]);
    assert_eq!(place.read("a"), b"new");
    place.fetched(&[&url, "--sha256", &sha256(b"new")]);
    assert_eq!(nginx.asked().len(), 1, "it is there, with its checksum");
}

#[test]
fn a_dry_run_asks_nobody_and_writes_nothing() {
    let (nginx, place) = (Nginx::start(), Place::new());
    let (code, said) = place.fetch_json(&["--dry-run", &nginx.http("a"), "ftp://h/b"]);
    assert_eq!((code, &said["files"][0]["outcome"], &said["files"][1]["outcome"]), (1, &"planned".into(), &"unsupported".into()));
    assert!(nginx.asked().is_empty() && place.names().is_empty());
}

#[test]
fn two_runs_at_once_do_not_write_into_one_part() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(3 << 20, 1));
    let mut first = place.command(&[&nginx.http("slow/a")]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("a.part").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = place.fetch(&[&nginx.http("slow/a")]);
    assert!(second.code == 1 && second.complaint().contains("'a' is being fetched by another process"), "{}", second.err);
    assert!(first.wait().unwrap().success());
    assert!(place.read("a") == content(3 << 20, 1));
}
