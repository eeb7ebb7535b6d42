//! Negative controls: something is taken away on which recovery stands, and a named test has to turn red.
//!
//! What is taken away is a feature of the package that has it, which no other build turns on. A test that stays green
//! without the thing that it guards guards nothing.

use anyhow::{Context, ensure};

use super::Tally;
use crate::build::{self, Profile, workspace_root};
use crate::setup;
use crate::system::endurance;
use crate::tool;

/// What is taken away, and which test of the package notices.
struct Control {
    what: &'static str,
    package: &'static str,
    feature: &'static str,
    /// Path of a unit test.
    test: &'static str,
}

const CONTROLS: [Control; 3] = [
    Control {
        what: "the bus-master fence",
        package: "devmgr",
        feature: "control-no-fence",
        test: "life::tests::no_order_of_events_breaks_a_rule",
    },
    Control {
        what: "the pauses between restarts",
        package: "supervision",
        feature: "control-no-backoff",
        test: "restart::tests::at_once_then_slower_then_never",
    },
    Control {
        what: "the check of epochs",
        package: "block-client",
        feature: "control-no-epoch",
        test: "ledger::tests::stale_answers_do_not_match",
    },
];

/// Runs them: on the host, and one in the running system.
pub(super) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for control in &CONTROLS {
        let name = format!("without {}: {} turns red", control.what, control.test);
        tally.check(&name, || control.check());
    }
    tally.check(
        "without replay: endurance-virtio-blk turns red",
        without_replay,
    );
    Ok(tally)
}

impl Control {
    fn output(&self, features: &[&str]) -> anyhow::Result<std::process::Output> {
        let mut command = setup::cargo();
        command.args(["test", "--quiet", "--package", self.package, "--lib"]);
        command.args(features);
        command.args(["--", "--exact", self.test]);
        command.current_dir(workspace_root());
        command.output().with_context(|| tool::shown(&command))
    }

    fn check(&self) -> anyhow::Result<()> {
        let output = self.output(&[])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && text.contains("1 passed"),
            "red although nothing is taken away, or not there: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let output = self.output(&["--features", self.feature])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // A build that fails is no answer.
        ensure!(
            !output.status.success() && text.contains("1 failed") && text.contains(self.test),
            "the test stays green, or does not build: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// The load of the endurance test with a client library that forgets what was in flight.
fn without_replay() -> anyhow::Result<()> {
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let forgetful = build::with_features(
        &built,
        &["test-endurance"],
        "block-client/control-no-replay",
    )?;
    let folder = build::target_folder("system")?;
    let trial = endurance::Trial {
        driver: "virtio-blk",
        cpus: 2,
        kills: 12,
        seed: 5,
        life_us: 20_000,
    };
    let run = |built, name: &str| -> anyhow::Result<anyhow::Result<_>> {
        let report = trial.test(name.to_owned())?.execute(built, &folder)?;
        Ok(trial.findings(&report))
    };
    run(&built, "control-replay")?.context("red although nothing is taken away")?;
    let complaint = match run(&forgetful, "control-no-replay")? {
        Ok(_) => anyhow::bail!("the test stays green"),
        Err(complaint) => format!("{complaint:#}"),
    };
    // It has to be the load or a judge who noticed, not a machine that did not come up.
    let noticed = ["must be there", "generation", "FAILED"];
    ensure!(
        noticed.iter().any(|word| complaint.contains(word)),
        "red for another reason: {complaint}"
    );
    Ok(())
}
