//! Over http and https, from nginx.

use std::time::{Duration, Instant};

use crate::support::nginx::Nginx;
use crate::support::{Place, content, sha256};

#[test]
fn files_of_every_size_come_over_http_in_parallel() {
    let (nginx, place) = (Nginx::start(), Place::new());
    let sizes = [0, 1, 10_240, 262_144, 262_145, 3 << 20, 40 << 20];
    for (number, &size) in sizes.iter().enumerate() {
        nginx.file(&format!("f{number}"), &content(size, size as u64));
    }
    let urls: Vec<String> = (0..sizes.len()).map(|number| nginx.http(&format!("f{number}"))).collect();
    let said = place.fetched(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    for (number, &size) in sizes.iter().enumerate() {
        assert!(place.read(&format!("f{number}")) == content(size, size as u64), "f{number}");
    }
    assert_eq!(place.names().len(), sizes.len(), "no part is left: {:?}", place.names());
    assert!(said.out.lines().next().unwrap().starts_with("file ") && said.out.contains("7 files, 0 failed"), "{}", said.out);
    let of_the_large: Vec<_> = nginx.asked().into_iter().filter(|asked| asked.path == "/f6").collect();
    assert!(of_the_large.len() >= 4 && of_the_large.iter().any(|asked| asked.status == 206), "ranges: {of_the_large:?}");
    for number in 0..6 {
        let asked = nginx.asked().iter().filter(|asked| asked.path == format!("/f{number}")).count();
        assert_eq!(asked, 1, "one request for f{number}");
    }
}

#[test]
fn many_small_files_share_their_connections() {
    let (nginx, place) = (Nginx::start(), Place::new());
    let list: String = (0..200)
        .map(|number| {
            nginx.file(&format!("s{number}"), &content(1000, number));
            format!("{} {}\n", nginx.http(&format!("s{number}")), sha256(&content(1000, number)))
        })
        .collect();
    std::fs::write(place.path("list"), list).unwrap();
    place.fetched(&["-j", "4", "--input-file", place.path("list").to_str().unwrap()]);
    assert_eq!(place.names().len(), 201);
    let connections: std::collections::BTreeSet<u64> = nginx.asked().iter().map(|asked| asked.connection).collect();
    assert!(connections.len() <= 8, "200 requests over {} connections", connections.len());
}

#[test]
fn https_needs_an_authority_that_is_trusted() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(3 << 20, 1));
    let refused = place.fetch(&[&nginx.https("a"), &nginx.http("a?other")]);
    assert_eq!(refused.code, 0, "the later of two with one name wins: {}", refused.err);
    let place = Place::new();
    let refused = place.fetch(&[&nginx.https("a"), "-o", "a"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.complaint().contains("the certificate does not verify: ") && refused.complaint().contains("try: --cacert FILE"),
        "{}",
        refused.err
    );
    assert!(place.names().is_empty());
    nginx.file("large", &content(40 << 20, 2));
    place.fetched(&["--cacert", &nginx.authority(), &nginx.https("a"), &nginx.https("large")]);
    assert!(place.read("a") == content(3 << 20, 1) && place.read("large") == content(40 << 20, 2));
    assert!(nginx.asked().iter().any(|asked| asked.path == "/large" && asked.status == 206), "in ranges: {:?}", nginx.asked());
    // From where this machine's own store would be.
    let place = Place::new();
    let trusted = place.command(&[&nginx.https("a")]).env("SSL_CERT_FILE", nginx.authority()).output().unwrap();
    assert!(trusted.status.success(), "{trusted:?}");
}

#[test]
fn a_server_without_ranges_gives_the_file_in_one_piece() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(40 << 20, 1));
    place.fetched(&[&nginx.http("noranges/a"), "--sha256", &sha256(&content(40 << 20, 1))]);
    assert!(place.read("a") == content(40 << 20, 1));
}

#[test]
fn a_body_without_a_length_is_taken_to_its_end() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a.txt", &vec![b'x'; 3 << 20]);
    place.fetched(&[&nginx.http("chunked/a.txt")]);
    assert_eq!(place.read("a.txt").len(), 3 << 20);
}

#[test]
fn what_could_be_compressed_comes_as_it_is() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &vec![b'x'; 1 << 20]);
    place.fetched(&[&nginx.http("gzip/a")]);
    assert_eq!(place.read("a"), vec![b'x'; 1 << 20]);
    // And what is compressed anyway is stored as it was sent, and this is said.
    nginx.file("b.gz", &content(5000, 1));
    let (code, said) = place.fetch_json(&[&nginx.http("encoded/b")]);
    assert_eq!((code, &said["files"][0]["remark"]), (0, &"stored as it was sent, encoded as gzip".into()));
    assert_eq!(place.read("b"), content(5000, 1));
}

#[test]
fn redirects_are_followed_but_not_out_of_tls() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(40 << 20, 1));
    nginx.file("b", b"b");
    place.fetched(&[&nginx.http("moved/a")]);
    assert!(place.read("a") == content(40 << 20, 1));
    place.fetched(&["--cacert", &nginx.authority(), &nginx.http("up/b")]);
    let place = Place::new();
    let refused = place.fetch(&["--cacert", &nginx.authority(), &nginx.https("down/b")]);
    assert!(refused.code == 1 && refused.complaint().contains("not followed: it leads from https to http"), "{}", refused.err);
    let refused = place.fetch(&[&nginx.http("out")]);
    assert!(refused.code == 1 && refused.complaint().contains("not followed: it leads to the scheme 'ftp'"), "{}", refused.err);
    assert_eq!(nginx.asked().iter().filter(|asked| asked.path == "/out").count(), 1, "once is enough");
    let refused = place.fetch(&[&nginx.http("loop")]);
    assert!(refused.code == 1 && refused.complaint().contains("not followed: it leads on and on"), "{}", refused.err);
    assert!(place.names().is_empty());
}

#[test]
fn nothing_that_is_said_or_written_holds_a_secret() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(4 << 20, 1));
    let secret = nginx.http("secret/a?X-Amz-Signature=hush").replace("http://", "http://user:hush@");
    let well = place.fetched(&[&secret]);
    let wrong = secret.replace("hush@", "hushhush@");
    let refused = place.fetch(&["--overwrite", &wrong]);
    assert!(refused.code == 1 && refused.complaint().contains("the server answered 401 (Unauthorized)"), "{}", refused.err);
    let unreachable =
        place.fetch(&["--retries", "0", "--overwrite", "http://user:hush@127.0.0.1:1/a?hush", "http://hush:hush@[::1/hush?hush=hush"]);
    let place = Place::new();
    let slow = place
        .command(&[&secret.replace("secret", "slow")])
        .env("RUST_LOG", "understudy=trace")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !place.path("a.part").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(slow.id().cast_signed()), nix::sys::signal::Signal::SIGINT).unwrap();
    let slow = crate::support::Said::of(&slow.wait_with_output().unwrap());
    assert_eq!(slow.code, 130);
    let mut written = String::new();
    for name in place.names() {
        written += &format!("{name} {}", String::from_utf8_lossy(&place.read(&name)).replace('\0', ""));
    }
    for said in [&well.out, &well.err, &refused.out, &refused.err, &unreachable.out, &unreachable.err, &slow.err, &written] {
        assert!(!said.contains("hush@") && !said.contains("=hush") && !said.contains("?hush"), "{said}");
    }
}

#[test]
fn where_a_redirect_leads_nobody_learns_what_signed_the_address_before_it() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("b", b"b");
    place.fetched(&[&nginx.http("moved/b?X-Amz-Signature=hush")]);
    let asked = nginx.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.referer == "-"), "{asked:?}");
}

#[test]
fn an_address_in_the_wrong_place_is_not_quoted_with_its_secrets() {
    let place = Place::new();
    for arguments in [
        &["--jobs", "https://user:hush@h/a?x=hush"][..],
        &["--timeout=https://user:hush@h/a?x=hush"],
        &["-o", "https://user:hush@h/a?x=hush", "http://h/b"],
    ] {
        let said = place.fetch(arguments);
        assert!(said.code == 2 && said.complaint().contains("https://h/a") && !said.err.contains("hush"), "{}", said.err);
    }
}

/// Killed in the middle of a body of four connections, and back half a second later.
fn killed_and_back(url: impl Fn(&Nginx) -> String) {
    let (mut nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(40 << 20, 1));
    let child = place
        .command(&["--json", "--cacert", &nginx.authority(), &url(&nginx)])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while !place.path("a.part.json").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    nginx.kill();
    std::thread::sleep(Duration::from_millis(500));
    nginx.start_again();
    let said = crate::support::Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(place.read("a") == content(40 << 20, 1));
    let said: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    // A connection that takes over a half of another one's share may meet it in one read of that.
    let received = said["received"].as_u64().unwrap();
    assert!((40 << 20..41 << 20).contains(&received), "only the rest: {said}");
    assert_eq!(place.names(), ["a"]);
}

#[test]
fn a_server_that_is_killed_in_mid_body_and_comes_back_is_asked_for_the_rest() {
    killed_and_back(|nginx| nginx.http("steady/a"));
}

#[test]
fn so_is_one_that_speaks_https() {
    killed_and_back(|nginx| nginx.https("steady/a"));
}

#[test]
fn what_will_not_change_is_asked_for_once() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("good", b"good");
    let (code, said) = place.fetch_json(&[&nginx.http("missing"), &nginx.http("denied"), &nginx.http("good")]);
    assert_eq!(code, 1);
    let causes: Vec<&str> = (0..2).map(|at| said["files"][at]["error"].as_str().unwrap()).collect();
    assert_eq!(causes, ["the server answered 404 (Not Found)", "the server answered 403 (Forbidden)"]);
    assert_eq!((&said["files"][2]["outcome"], nginx.asked().len()), (&"fetched".into(), 3));
}

#[test]
fn a_busy_server_is_asked_again_when_it_says_so() {
    let (nginx, place) = (Nginx::start(), Place::new());
    let begun = Instant::now();
    let refused = place.fetch(&["--retries", "1", &nginx.http("busy")]);
    assert!(refused.code == 1 && refused.complaint().contains("503"), "{}", refused.err);
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After: 1");
    assert_eq!(nginx.asked().len(), 2);
    let refused = place.fetch(&[&nginx.http("forever")]);
    assert!(refused.complaint().contains("the server asks to wait for 9999 s"), "{}", refused.err);
    assert_eq!(nginx.asked().len(), 3);
}

#[test]
fn a_slow_transfer_is_ended_by_ctrl_c_and_gone_on_with() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(4 << 20, 1));
    let child =
        place.command(&[&nginx.http("slow/a")]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !place.path("a.part.json").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = crate::support::Said::of(&output);
    assert_eq!(said.code, 130, "{}", said.err);
    assert!(said.err.contains("1 part is kept in ") && said.out.contains("interrupted"), "{} {}", said.out, said.err);
    assert_eq!(place.names(), ["a.part", "a.part.json"]);
    let (code, said) = place.fetch_json(&[&nginx.http("slow/a")]);
    assert_eq!(code, 0);
    assert!(said["received"].as_u64().unwrap() < 4 << 20, "only the rest: {said}");
    assert!(place.read("a") == content(4 << 20, 1));
    assert_eq!(place.names(), ["a"]);
}

#[test]
fn a_deadline_ends_it_and_keeps_what_came() {
    let (nginx, place) = (Nginx::start(), Place::new());
    nginx.file("a", &content(20 << 20, 1));
    let begun = Instant::now();
    let said = place.fetch(&["--deadline", "4s", &nginx.http("slow/a")]);
    assert!(said.code == 1 && said.complaint().contains("the deadline has passed ("), "{}", said.err);
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
    assert_eq!(place.names(), ["a.part", "a.part.json"]);
}
