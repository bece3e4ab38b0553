//! Servers that break off, lie and change their minds. Whatever they do, there is a whole file under the final name, or none.

use std::io::{Read as _, Write as _};

use crate::support::server::{Manner, Server};
use crate::support::{Place, content, sha256};

const SIZE: usize = 3 << 20;

fn server(change: impl FnOnce(&mut Manner)) -> Server {
    let mut manner = Manner::default();
    change(&mut manner);
    Server::start(content(SIZE, 1), manner)
}

#[test]
fn after_a_reset_in_mid_body_only_the_rest_is_asked_for() {
    for resets in [false, true] {
        let (server, place) = (server(|manner| (manner.break_off, manner.resets) = ((2, 1_000_000), resets)), Place::new());
        place.fetched(&[&server.url("a")]);
        assert!(place.read("a") == content(SIZE, 1));
        let asked = server.asked();
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert_eq!(asked[0].range, None);
        // A reset may overtake what was sent before it.
        assert!(asked[1..].iter().all(|asked| asked.range.is_some() && asked.condition.as_deref() == Some("\"one\"")), "{asked:?}");
        assert!(resets || asked[1].range == Some((1_000_000, SIZE as u64)), "{asked:?}");
    }
}

#[test]
fn a_small_file_that_breaks_off_is_fetched_again() {
    let server = Server::start(content(5000, 1), Manner { break_off: (2, 1000), ..Manner::default() });
    let place = Place::new();
    place.fetched(&[&server.url("a")]);
    assert_eq!((place.read("a"), server.asked().len()), (content(5000, 1), 3));
}

#[test]
fn a_server_that_breaks_off_each_time_fails_and_the_part_is_gone_on_with() {
    let (server, place) = (server(|manner| manner.break_off = (99, 300_000)), Place::new());
    let said = place.fetch(&["--retries", "1", &server.url("a")]);
    assert!(said.code == 1 && said.complaint().contains(" kept); try: "), "{}", said.err);
    assert_eq!(place.names(), ["a.part", "a.part.json"]);
    server.behave(|manner| manner.break_off = (0, 0));
    server.forget();
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(SIZE, 1));
    assert_eq!(server.asked().iter().map(|asked| asked.range).collect::<Vec<_>>(), [Some((600_000, SIZE as u64))]);
}

#[test]
fn a_part_of_an_object_that_changed_is_begun_afresh() {
    for condition in ["kept", "ignored"] {
        let (server, place) = (server(|manner| manner.break_off = (99, 300_000)), Place::new());
        assert_eq!(place.fetch(&["--retries", "0", &server.url("a")]).code, 1);
        server.change(content(SIZE, 2), "\"two\"");
        server.behave(|manner| (manner.break_off, manner.ignores_conditions) = ((0, 0), condition == "ignored"));
        place.fetched(&[&server.url("a")]);
        assert!(place.read("a") == content(SIZE, 2), "{condition}: not a byte of the old one");
    }
}

#[test]
fn a_range_without_the_tag_of_the_whole_is_not_trusted() {
    let (server, place) = (server(|manner| (manner.break_off, manner.tagless_ranges) = ((99, 300_000), true)), Place::new());
    assert_eq!(place.fetch(&["--retries", "0", &server.url("a")]).code, 1);
    assert_eq!(place.names(), ["a.part", "a.part.json"]);
    server.change(content(SIZE, 2), "\"two\"");
    server.behave(|manner| (manner.break_off, manner.ignores_conditions) = ((0, 0), true));
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(SIZE, 2), "not a byte of the old one");
}

/// An answer whose head tells one length, and whose chunks go on until nobody reads them any more.
fn endless_chunks(length: usize) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/a", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 4096]);
            let _ = write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n");
            while write!(connection, "10000\r\n{}\r\n", "x".repeat(0x10000)).is_ok() {}
        }
    });
    url
}

#[test]
fn a_body_longer_than_its_head_says_is_not_read_to_its_end() {
    for length in [5, 1 << 20] {
        let place = Place::new();
        let said = place.fetch(&[&endless_chunks(length)]);
        assert_eq!((said.code, place.names()), (1, Vec::new()), "{}", said.err);
        said.complaint();
    }
}

fn server_of_an_object_that_becomes(another: Vec<u8>) -> Server {
    server(|manner| (manner.break_off, manner.becomes) = ((1, 300_000), Some((another, "\"two\"".to_owned()))))
}

#[test]
fn an_object_that_changes_while_it_is_fetched_is_fetched_as_the_new_one() {
    let (server, place) = (server_of_an_object_that_becomes(content(SIZE, 2)), Place::new());
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(SIZE, 2));
    assert_eq!(server.asked()[1].condition.as_deref(), Some("\"one\""), "the rest of the old one was asked for first");
}

/// Of the large one nothing stays beside it.
#[test]
fn an_object_that_becomes_a_small_one_meanwhile_leaves_no_part() {
    let (server, place) = (server_of_an_object_that_becomes(content(1000, 2)), Place::new());
    place.fetched(&[&server.url("a")]);
    assert_eq!((place.read("a"), place.names()), (content(1000, 2), vec!["a".to_owned()]));
}

#[test]
fn an_object_that_never_rests_fails() {
    let (server, place) = (server(|manner| manner.break_off = (99, 300_000)), Place::new());
    let changing = server.clone();
    std::thread::spawn(move || {
        for number in 0.. {
            changing.change(content(SIZE, number), &format!("\"{number}\""));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let said = place.fetch(&["--retries", "2", &server.url("a")]);
    assert_eq!((said.code, place.names().contains(&"a".to_owned())), (1, false), "{}", said.err);
}

#[test]
fn a_server_without_a_version_is_asked_for_the_whole_again() {
    let (server, place) = (server(|manner| (manner.etag, manner.break_off) = (None, (1, 300_000))), Place::new());
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(SIZE, 1));
    assert!(server.asked().iter().all(|asked| asked.range.is_none()));
}

/// Each breaks once, as when a server restarts: one failure, however many connections there were.
#[test]
fn each_connection_has_attempts_of_its_own() {
    let server = Server::start(content(40 << 20, 1), Manner { break_off: (4, 100_000), ..Manner::default() });
    let place = Place::new();
    place.fetched(&["--retries", "1", &server.url("a")]);
    assert!(place.read("a") == content(40 << 20, 1));
    assert!(server.asked().len() >= 8, "all four broke");
}

#[test]
fn a_range_that_is_longer_than_it_says_is_not_taken() {
    let (server, place) = (server(|manner| (manner.break_off, manner.whole_as_range) = ((1, 300_000), true)), Place::new());
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(SIZE, 1));
    assert_eq!(server.asked().iter().map(|asked| asked.range.is_some()).collect::<Vec<_>>(), [false, true, false]);
}

/// What the one connection brings beyond the border belongs to the other, until that is refused; then somebody has to bring it again.
#[test]
fn a_range_that_is_refused_while_its_neighbour_crosses_the_border_leaves_no_gap() {
    // Not where one piece ends and another begins.
    const BORDER: usize = (20 << 20) + 8 * 1024;
    let whole = content(2 * BORDER, 1);
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let whole = &whole;
            scope.spawn(move || {
                for step in 0..6 {
                    let refuses_range_at = Some(BORDER - 32 * 1024 + (lane * 6 + step) * 4 * 1024);
                    let server = Server::start(whole.clone(), Manner { rate: Some(25_000_000), refuses_range_at, ..Manner::default() });
                    let place = Place::new();
                    place.fetched(&["--connections", "2", &server.url("a")]);
                    assert!(place.read("a") == *whole, "refused at {refuses_range_at:?}");
                }
            });
        }
    });
}

#[test]
fn ranges_that_a_server_ignores_come_over_the_connection_that_is_there() {
    let server = Server::start(content(40 << 20, 1), Manner { ranges: false, ..Manner::default() });
    let place = Place::new();
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(40 << 20, 1));
    // And where the connection breaks, from the beginning.
    let (server, place) = (server_without_ranges_that_breaks(), Place::new());
    place.fetched(&[&server.url("a")]);
    assert!(place.read("a") == content(SIZE, 1));
}

fn server_without_ranges_that_breaks() -> Server {
    server(|manner| (manner.ranges, manner.break_off) = (false, (1, 300_000)))
}

#[test]
fn a_body_that_may_have_been_cut_needs_a_checksum() {
    let (server, place) = (server(|manner| manner.length = false), Place::new());
    let said = place.fetch(&[&server.url("a")]);
    assert!(said.code == 1 && said.complaint().contains("whether it is whole cannot be known; try: give its --sha256"), "{}", said.err);
    assert!(place.names().is_empty());
    place.fetched(&[&server.url("a"), "--sha256", &sha256(&content(SIZE, 1))]);
    server.behave(|manner| manner.break_off = (1, 300_000));
    let said = place.fetch(&["-o", "b", &server.url("a"), "--sha256", &sha256(&content(SIZE, 1))]);
    assert_eq!((said.code, place.names()), (3, vec!["a".to_owned()]), "{}", said.err);
}

#[test]
fn a_file_with_another_checksum_gets_no_name() {
    let (server, place) = (server(|_| {}), Place::new());
    let wrong = sha256(b"something else");
    let said = place.fetch(&[&server.url("a"), "--sha256", &wrong]);
    assert!(said.code == 3 && said.complaint().contains(&format!("sha256 mismatch: expected {wrong}, found ")), "{}", said.err);
    assert!(place.names().is_empty());
}

#[test]
fn a_part_that_was_spoilt_is_fetched_afresh_by_its_checksum() {
    let (server, place) = (server(|manner| manner.break_off = (99, 300_000)), Place::new());
    assert_eq!(place.fetch(&["--retries", "0", &server.url("a")]).code, 1);
    let part = std::fs::OpenOptions::new().write(true).open(place.path("a.part")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&part, b"spoilt", 1000).unwrap();
    server.behave(|manner| manner.break_off = (0, 0));
    place.fetched(&[&server.url("a"), "--sha256", &sha256(&content(SIZE, 1))]);
    assert!(place.read("a") == content(SIZE, 1));
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let (server, place) = (server(|manner| manner.stalls = Some(300_000)), Place::new());
    place.fetched(&["--timeout", "1s", &server.url("a")]);
    assert!(place.read("a") == content(SIZE, 1));
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn passing_refusals_are_lived_through() {
    let (server, place) = (server(|manner| manner.refusals = (2, 500, String::new())), Place::new());
    place.fetched(&[&server.url("a")]);
    assert_eq!(server.asked().len(), 3);
}
