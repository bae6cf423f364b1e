//! Landlock: the files that are out of reach from here on, whoever owns them.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::reach::Reach;
use crate::policies::describe;

/// Leaves nothing in reach but this. What is not there is added to `missing`.
pub(super) fn restrict(reach: &Reach, missing: &mut Vec<PathBuf>) -> Result<String, String> {
    for directory in &reach.write {
        // What writes there would make it, and could not any more. Where that fails it will say so.
        let _ = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    }
    let named = reach.named.iter().chain(&reach.write).chain(&reach.remove);
    missing.extend(named.filter(|path| !path.exists()).cloned());
    let status = ruleset(reach).map_err(|error| describe(&error))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is not enabled".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok(format!("{}, in part", version(&status))),
        RulesetStatus::FullyEnforced => Ok(version(&status)),
    }
}

fn ruleset(reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    // Everything that opens, makes, removes or runs a file; and signals to others.
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V5))?;
    let ruleset = ruleset.scope(Scope::Signal)?.create()?;
    let ruleset = allow(ruleset, reach.read.iter(), READ)?;
    let ruleset = allow(ruleset, reach.write.iter(), READ | WRITE)?;
    allow(ruleset, reach.remove.iter(), make_bitflags!(AccessFs::{RemoveFile}))?.restrict_self()
}

fn allow<'a>(
    ruleset: RulesetCreated,
    paths: impl Iterator<Item = &'a PathBuf>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // A path that is not there is left out.
    ruleset.add_rules(path_beneath_rules(paths.map(|path| -> &Path { path }), access))
}

fn version(status: &RestrictionStatus) -> String {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => format!("ABI {}", effective_abi as i32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => "none".to_owned(),
    }
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// A log that is changed for the next, a file that is replaced.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg | RemoveFile | Truncate});
/// For the sidecar's own user alone.
const DIRECTORY_MODE: u32 = 0o700;
