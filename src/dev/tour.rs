//! The steps of the tour. Each does one thing, checks that it held, and tells it.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::try_join;
use http::{Response, StatusCode};
use serde_json::Value;

use super::home;
use super::narrate::{Narrator, Step, difference};
use super::plan::{Invocation, POLICIES, POLICY, Plan, Port, Stage, TRUST_DOMAIN, workload};
use super::processes::{Binary, Processes};
use super::{http as client, plan};
use crate::exit::{Exit, Failure, describe};

/// The tour on its way.
pub(crate) struct Tour<W> {
    pub(crate) plan: Plan,
    pub(crate) binary: Binary,
    pub(crate) processes: Processes,
    pub(crate) narrator: Narrator<W>,
}

/// What is left when the tour is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct After {
    /// Whether everything stays up.
    pub(crate) stays: bool,
    /// Whether the files stay.
    pub(crate) kept: bool,
}

impl<W: Write> Tour<W> {
    /// Takes every step; the first that does not hold ends it.
    pub(crate) async fn take(&mut self, after: After) -> anyhow::Result<()> {
        self.narrator.banner(BANNER)?;
        self.start_ca().await?;
        self.admit_agent().await?;
        self.start_workloads().await?;
        self.show_identities().await?;
        let ready = format!("All ready after {} ms", self.narrator.elapsed().as_millis());
        self.narrator.tell(&Step::new("ready", ready))?;
        self.call_allowed().await?;
        let denial = self.call_denied().await?;
        self.find_record(&denial).await?;
        self.explain().await?;
        self.edit_policy().await?;
        self.call_again().await?;
        self.go_on(after)
    }

    /// Tells why the tour ended early, and makes it the reason for the exit code.
    pub(crate) fn fail(&mut self, cause: &anyhow::Error) -> Failure {
        let reason = describe(cause.as_ref());
        // Where standard output is gone, standard error still carries the reason.
        let _ = self.narrator.tell(&Step::new("failed", "This step did not hold").text(&reason));
        // As text: a tour cut short by a closed pipe has not held, unlike a table cut short by one.
        Failure::because(Exit::Failed, format!("the tour did not hold what it promises\n  because {reason}"))
    }

    async fn start_ca(&mut self) -> anyhow::Result<()> {
        let command = self.plan.run_ca();
        self.processes.start("ca", &command)?;
        self.copy_binaries()?;
        self.processes.ready(&["ca"]).await?;
        let step = Step::new("ca", "The CA runs: it has made the key of a trust domain")
            .command(command.shown())
            .fact("trust domain", TRUST_DOMAIN)
            .fact("for agents", self.plan.at(Port::Ca).to_string());
        self.tell(step)
    }

    /// Workloads are told apart by the path of their executable, so each gets a copy.
    fn copy_binaries(&self) -> anyhow::Result<()> {
        let (binary, plan) = (&self.binary.0, &self.plan);
        let copy = |name: &str| home::copy(binary, &plan.path(&format!("bin/{name}")));
        std::thread::scope(|scope| {
            let web = scope.spawn(|| copy("web"));
            copy("api")?;
            web.join()
                .map_err(|_| anyhow::anyhow!("the binary could not be copied"))?
                .context("the binary could not be copied")
        })
    }

    async fn admit_agent(&mut self) -> anyhow::Result<()> {
        let token = self.plan.create_token();
        self.binary.run(&token).await?;
        let step = Step::new(
            "join_string",
            "A join string admits one agent, once: the CA's address, a token, the hash of its root",
        )
        .command(token.shown());
        self.tell(step)?;
        let (agent, api, web) =
            (self.plan.run_agent(), self.plan.create_entry("api"), self.plan.create_entry("web"));
        self.processes.start("agent", &agent)?;
        self.processes.start("api", &self.plan.run_api())?;
        self.processes.start("web", &self.plan.run_web())?;
        try_join!(
            self.processes.ready(&["agent", "api", "web"]),
            self.binary.run(&api),
            self.binary.run(&web)
        )?;
        let step = Step::new("agent", "The agent runs: it has spent the token and proved itself to the CA")
            .command(agent.shown())
            .fact("Workload API", self.plan.workload_api());
        self.tell(step)?;
        let step = Step::new("entries", "Two entries say who is who: a process is known by its executable")
            .command(web.shown())
            .command(api.shown());
        self.tell(step)
    }

    async fn start_workloads(&mut self) -> anyhow::Result<()> {
        let (api, web) = (self.plan.run_sidecar("api"), self.plan.run_sidecar("web"));
        self.processes.start("api-sidecar", &api)?;
        self.processes.start("web-sidecar", &web)?;
        self.processes.ready(&["api-sidecar", "web-sidecar"]).await?;
        for admin in [Port::ApiAdmin, Port::WebAdmin] {
            self.until("sidecar to be ready", || self.is_ready(admin)).await?;
        }
        let step = Step::new("services", "Two services that speak plain HTTP, and their sidecars")
            .command(self.plan.run_api().shown())
            .command(api.shown())
            .command(self.plan.run_web().shown())
            .command(web.shown())
            .fact("web", self.plan.at(Port::Web).to_string())
            .fact(
                "api",
                format!("{}, from outside {}", self.plan.at(Port::Api), self.plan.at(Port::ApiInbound)),
            );
        self.tell(step)
    }

    async fn is_ready(&self, admin: Port) -> Option<()> {
        let answer = client::get(self.plan.at(admin), "/readyz").await.ok()?;
        (answer.status() == StatusCode::OK).then_some(())
    }

    async fn show_identities(&mut self) -> anyhow::Result<()> {
        let (api, web) = (self.plan.fetch("api"), self.plan.fetch("web"));
        let json = |command: &Invocation| command.clone().and(["-o", "json"]);
        let (api_command, web_command) = (json(&api), json(&web));
        let (api_svid, web_svid) = try_join!(self.binary.run(&api_command), self.binary.run(&web_command))?;
        let mut step =
            Step::new("identities", "Each workload has an identity of its own, proved by its executable")
                .command(web.shown())
                .command(api.shown());
        for (name, printed) in [("web", web_svid), ("api", api_svid)] {
            let printed: Value = serde_json::from_str(&printed.text).context("the identity is not JSON")?;
            let id = plan::workload(name)?;
            let got = field(&printed, "/items/0/id").unwrap_or("none");
            ensure!(got == id.as_str(), "{name} got {got} and not {id}");
            let serial = field(&printed, "/items/0/serial").context("the identity has no serial number")?;
            let until = field(&printed, "/items/0/not_after").context("the identity has no end")?;
            let rest = format!("serial {serial}, until {until}");
            step = step.fact(id.as_str(), rest);
        }
        self.tell(step)
    }

    async fn call_allowed(&mut self) -> anyhow::Result<()> {
        let answer = self.call("/accounts/7").await?;
        let body = text(&answer);
        ensure!(answer.status() == StatusCode::OK, "the call was answered {}: {body}", answer.status());
        let told: Value = serde_json::from_str(&body).context("the answer of api is not JSON")?;
        let caller = field(&told, "/x-forwarded-client-cert").unwrap_or_default();
        let web = workload("web")?;
        ensure!(caller.contains(web.as_str()), "api was told the caller is {caller:?} and not {web}");
        let step = Step::new(
            "allowed",
            "web reads an account from api: mutual TLS between the sidecars, and a rule allows it",
        )
        .command(self.curl("/accounts/7"))
        .fact("answer", answer.status().to_string())
        .fact("api saw", format!("x-forwarded-client-cert: {caller}"))
        .text(&body);
        self.tell(step)
    }

    async fn call_denied(&mut self) -> anyhow::Result<String> {
        let answer = self.call("/reports/q3").await?;
        let body = text(&answer);
        ensure!(
            answer.status() == StatusCode::FORBIDDEN,
            "the call was answered {}: {body}",
            answer.status()
        );
        let denial = denial(&body)?;
        let step = Step::new(
            "denied",
            "web asks api for a report: no rule allows it, and the caller learns only an id",
        )
        .command(self.curl("/reports/q3"))
        .fact("answer", answer.status().to_string())
        .fact("denial", denial.clone())
        .text(&body);
        self.tell(step)?;
        Ok(denial)
    }

    async fn find_record(&mut self, denial: &str) -> anyhow::Result<()> {
        let query = self.plan.query(denial);
        let json = query.clone().and(["-o", "jsonl"]);
        let record = self
            .until("denial to be in the audit log", || async {
                let printed = self.binary.run(&json).await.ok()?;
                serde_json::from_str::<Value>(printed.text.lines().next()?).ok()
            })
            .await?;
        let reason = field(&record, "/status_detail").context("the record gives no reason")?;
        let from = field(&record, "/src_endpoint/uid").context("the record does not say who called")?;
        ensure!(from == workload("web")?.as_str(), "the record says that {from} called");
        let told = self.binary.run(&query).await?;
        let step = Step::new("record", "The refusal is on record: who, whom, what and why")
            .command(query.shown())
            .fact("reason", reason)
            .text(&told.text);
        self.tell(step)
    }

    async fn explain(&mut self) -> anyhow::Result<()> {
        let command = self.plan.explain();
        let printed = self.binary.run(&command).await?;
        let denied = i32::from(Exit::Denied.code());
        ensure!(
            printed.status.code() == Some(denied),
            "the policy files do not explain it:\n{}",
            printed.text
        );
        let step = Step::new("explained", "What decided, and the nearest rule that could have allowed it")
            .command(command.shown())
            .text(&printed.text);
        self.tell(step)
    }

    async fn edit_policy(&mut self) -> anyhow::Result<()> {
        let (before, after) =
            (self.plan.policy(Stage::ReadAccounts), self.plan.policy(Stage::ReadReportsToo));
        identity::durable::write(&self.plan.path(POLICY), 0o600, after.as_bytes())?;
        let step = Step::new("edited", "The policy file gets one more rule")
            .fact("file", self.plan.path(POLICY).display().to_string());
        self.tell(Step { lines: difference(&before, &after), ..step })?;
        let wanted = generation(&after)?;
        let since = Instant::now();
        self.until("sidecar to load the policy", || self.has_generation(&wanted)).await?;
        let step = Step::new(
            "reloaded",
            format!("The sidecar of api has loaded it after {} ms", since.elapsed().as_millis()),
        )
        .fact("generation", wanted);
        self.tell(step)
    }

    async fn has_generation(&self, wanted: &str) -> Option<()> {
        let answer = client::get(self.plan.at(Port::ApiAdmin), "/readyz").await.ok()?;
        let told: Value = serde_json::from_slice(answer.body()).ok()?;
        (field(&told, "/policy_generation") == Some(wanted)).then_some(())
    }

    async fn call_again(&mut self) -> anyhow::Result<()> {
        let answer = self.call("/reports/q3").await?;
        let body = text(&answer);
        ensure!(answer.status() == StatusCode::OK, "the call was answered {}: {body}", answer.status());
        let step = Step::new("allowed_after_edit", "The same call passes")
            .command(self.curl("/reports/q3"))
            .fact("answer", answer.status().to_string())
            .text(&body);
        self.tell(step)
    }

    fn go_on(&mut self, after: After) -> anyhow::Result<()> {
        let plan = &self.plan;
        let files =
            if after.kept { "they stay" } else { "they are removed at the end; --keep DIR leaves them" };
        let title = match after.stays {
            true => "Go on by hand; Ctrl-C ends it",
            false => "Without --once it would stay up, to go on by hand",
        };
        let mut step = Step::new("by_hand", title)
            .fact("files", format!("{} ({files})", plan.dir().display()))
            .fact("policies", plan.path(POLICIES).display().to_string());
        if let Some(dir) = self.binary.0.parent() {
            step = step.command(format!(
                "export PATH={}:$PATH",
                crate::commands::shell::quote(&dir.display().to_string())
            ));
        }
        let step = step
            .command(format!("export SPIFFE_ENDPOINT_SOCKET={}", plan.workload_api()))
            .command(self.curl("/accounts/7"))
            .command(format!("curl -X DELETE http://{}/accounts/7", plan.at(Port::Web)))
            .command(format!("curl http://{}/metrics", plan.at(Port::ApiAdmin)))
            .command(plan.tail().shown())
            .command(plan.list_entries().shown())
            .command(plan.who_is_web().shown());
        self.tell(step)
    }

    async fn call(&self, path: &str) -> anyhow::Result<Response<Bytes>> {
        client::get(self.plan.at(Port::Web), path).await
    }

    fn curl(&self, path: &str) -> String {
        format!("curl http://{}{path}", self.plan.at(Port::Web))
    }

    fn tell(&mut self, step: Step) -> anyhow::Result<()> {
        self.narrator.tell(&step).context("the step cannot be told")
    }

    /// Asks again and again until there is an answer or the deadline has passed.
    async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        ask: impl Fn() -> F,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(answer) = ask().await {
                return Ok(answer);
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("waited {} s for the {what}", PATIENCE.as_secs())
    }
}

fn text(answer: &Response<Bytes>) -> String {
    String::from_utf8_lossy(answer.body()).into_owned()
}

/// A text in a document, by its JSON pointer.
fn field<'a>(document: &'a Value, pointer: &str) -> Option<&'a str> {
    document.pointer(pointer).and_then(Value::as_str)
}

/// The id that the caller of a refused request is given.
fn denial(body: &str) -> anyhow::Result<String> {
    let told: Value =
        serde_json::from_str(body).with_context(|| format!("the refusal is not JSON: {body}"))?;
    let id =
        field(&told, "/denial_id").with_context(|| format!("the refusal carries no denial id: {body}"))?;
    Ok(id.to_owned())
}

/// The generation that a sidecar shows once it has loaded exactly this policy file.
fn generation(policy: &str) -> anyhow::Result<String> {
    let source = policy::strict::Source::new("api.yaml", policy);
    Ok(policy::compile(&[source])?.generation().to_owned())
}

const BANNER: &str = "DEVELOPMENT ONLY: keys and registry live in a temporary directory on this machine";

/// How long a condition may take on loopback before it has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denial_id_is_read_from_the_refusal() {
        assert_eq!(denial("{\"denial_id\":\"01JD\"}\n").unwrap(), "01JD");
        for body in ["", "Forbidden", "{}", "{\"denial_id\":7}"] {
            assert!(denial(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn the_generation_waited_for_is_that_of_the_policy_written() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(dir.path().to_owned(), std::net::Ipv4Addr::LOCALHOST.into(), 20_000);
        let (before, after) = (plan.policy(Stage::ReadAccounts), plan.policy(Stage::ReadReportsToo));

        let (before, after) = (generation(&before).unwrap(), generation(&after).unwrap());

        assert_ne!(before, after);
        assert_eq!(after.len(), 64);
    }
}
