//! What is in reach, and what is not although it lies near.

use std::os::unix::fs::symlink;

use policy::strict::Source;

use super::*;

fn reach(text: &str, configuration: &str) -> Reach {
    let inbound =
        "inbound:\n  - {name: a, listen: 0.0.0.0:8443, protocol: tcp, application: 127.0.0.1:8080}\n";
    let text = format!("vouchsafe: proxy/v1\n{text}{inbound}");
    let config =
        Config::parse(&Source::new("proxy.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"));
    Reach::of(&config, Path::new(configuration))
}

fn paths<const N: usize>(paths: [&str; N]) -> BTreeSet<PathBuf> {
    paths.into_iter().map(PathBuf::from).collect()
}

#[test]
fn everything_that_is_named_is_in_reach_for_what_it_is_for() {
    let text = "source: {pem: {certificate: /a/pem/svid.pem, key: /a/keys/key.pem, bundle: /a/trust/bundle.pem}}\n\
        policies: /a/policies\nservices_dir: /a/services\njwt: {trust_anchors: /a/anchors/ca.pem}\n\
        audit: {file: /b/audit/audit.jsonl}\ntelemetry: {access_log: {file: /b/access/log}}\n\
        admin: {socket: /c/admin/sock}\nhandover: {socket: /c/handover/sock}\n";

    let reach = reach(text, "/a/config/proxy.yaml");

    let read = ["config", "pem", "keys", "trust", "policies", "services", "anchors"];
    for directory in read.map(|name| Path::new("/a").join(name)) {
        assert!(reach.read.contains(&directory), "{directory:?}");
    }
    assert_eq!(reach.write, paths(["/b/access", "/b/audit"]));
    assert_eq!(reach.remove, paths(["/c/admin", "/c/handover"]));
}

#[test]
fn a_file_among_the_systems_is_in_reach_alone() {
    let reach = reach("policies: /etc/policies\n", "/etc/proxy.yaml");

    assert!(
        reach.read.contains(Path::new("/etc/proxy.yaml")) && reach.read.contains(Path::new("/etc/policies"))
    );
    assert!(reach.read.iter().all(|path| !is_shared(path)), "{:?}", reach.read);
    assert!(reach.write.is_empty());
}

#[test]
fn where_the_highest_numbers_are_kept_is_written_to() {
    let reach =
        reach("policies: {from: agent, state_dir: /a/state}\nservices_state_dir: /a/services\n", "/a/b/c");

    assert_eq!(reach.write, paths(["/a/services", "/a/state"]));
}

#[test]
fn a_link_that_is_swapped_leads_to_what_is_in_reach_before_and_after() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("releases/1")).unwrap();
    symlink("releases/1", root.join("current")).unwrap();

    let found = links(&root.join("current/svid.pem"));

    assert_eq!(found, [root.join("releases")]);
}

#[test]
fn links_to_links_are_followed_and_a_ring_of_them_ends() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("far/away")).unwrap();
    symlink("../far/away/cert1.pem", root.join("far/cert.pem")).unwrap();
    symlink(root.join("far/cert.pem"), root.join("cert.pem")).unwrap();
    symlink("ring", root.join("ring")).unwrap();

    assert_eq!(links(&root.join("cert.pem")), [root.join("far"), root.join("far/../far/away")]);
    assert!(links(&root.join("ring")).len() <= MAX_LINKS);
}

#[test]
fn a_link_of_the_system_opens_nothing() {
    // /var/run is a link to /run on most systems, and a directory or nothing on others.
    assert_eq!(links(Path::new("/var/run/vouchsafe/agent.sock")), Vec::<PathBuf>::new());
}
