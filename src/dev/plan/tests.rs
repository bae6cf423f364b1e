//! The plan of the tour: its files are accepted by those who read them.

use std::net::Ipv4Addr;

use policy::strict::Source;

use super::*;

#[test]
fn every_port_is_its_own() {
    let ports =
        [Port::Ca, Port::Web, Port::WebToApi, Port::WebAdmin, Port::ApiInbound, Port::Api, Port::ApiAdmin]
            .map(|port| plan().at(port).port());

    assert_eq!(ports.to_vec(), (20_000..20_000 + PORTS).collect::<Vec<_>>());
}

#[test]
fn the_daemons_accept_their_files() {
    for (name, text) in plan().files() {
        let source = Source { name: name.to_owned(), text };
        let problems = match name {
            "ca.yaml" => ca::Config::parse(&source).err(),
            "agent.yaml" => agent::Config::parse(&source).err(),
            POLICY => policy::compile(&[source]).err(),
            _ => proxy::Config::parse(&source).err(),
        };
        assert!(problems.is_none(), "{name}: {}", problems.unwrap());
    }
}

#[test]
fn a_directory_with_odd_letters_is_still_accepted() {
    let plan = Plan::new(PathBuf::from("/tmp/a \"b\": c"), Ipv4Addr::LOCALHOST.into(), 20_000);
    let text = plan.files().remove(0).1;

    let config = ca::Config::parse(&Source { name: "ca.yaml".into(), text });

    assert!(config.is_ok(), "{}", config.err().unwrap());
}

#[test]
fn the_second_policy_differs_by_the_new_rule_alone() {
    let (before, after) = (plan().policy(Stage::ReadAccounts), plan().policy(Stage::ReadReportsToo));

    let added: Vec<_> = after.lines().filter(|line| !before.contains(line)).collect();

    assert_eq!(added.len(), 2, "{added:?}");
    assert!(before.lines().all(|line| after.contains(line)));
}

#[test]
fn a_command_is_shown_so_that_it_can_be_pasted() {
    assert_eq!(
        plan().explain().shown(),
        "vouchsafe policy explain --policies /tmp/tour/policies --from spiffe://dev.local/web \
         --to spiffe://dev.local/api --port 20004 'GET /reports/q3'"
    );
    assert_eq!(
        plan().fetch("web").shown(),
        "/tmp/tour/bin/web svid fetch --socket unix:///tmp/tour/run/agent.sock"
    );
}

#[test]
fn every_command_of_the_plan_is_one_of_ours() {
    use clap::Parser as _;
    let commands = [
        plan().run_ca(),
        plan().create_token(),
        plan().run_agent(),
        plan().create_entry("web"),
        plan().run_api(),
        plan().run_web(),
        plan().run_sidecar("web"),
        plan().fetch("api"),
        plan().query("01JD9Z6Q4T8M0V2W7Y5N3K1R4S"),
        plan().explain(),
    ];

    for command in commands {
        let words = std::iter::once("vouchsafe".to_owned()).chain(command.arguments.clone());
        let parsed = crate::cli::Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{}: {}", command.shown(), parsed.err().unwrap());
    }
}

fn plan() -> Plan {
    Plan::new(PathBuf::from("/tmp/tour"), Ipv4Addr::LOCALHOST.into(), 20_000)
}
