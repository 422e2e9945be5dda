//! A session that has passed preflight.

use crate::checkpoint::Prefix;
use crate::crypt::Cipher;
use crate::crypt::secret::Key32;
use crate::device::guard;
use crate::files::output::Output;
use crate::plan::account::Exported;
use crate::plan::catalog::Catalog;
use crate::plan::tree::FileKind;
use crate::report::{Kind, PlanSummary, Problem, Problems, Skipped, counted};
use crate::request::PrepRequest;
use crate::session::planning::Planned;
use crate::session::preflight;
use crate::surroundings::Surroundings;
use crate::units::ByteLen;
use crate::work::append::drive::AppendDrive;
use crate::work::planner::PreparedDrive;
use crate::work::recipe::Recipe;
use crate::work::{list, planner};
use std::sync::Arc;

/// A session that has passed preflight. Nothing has been written yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request: PrepRequest,
    pub(super) cipher: Cipher,
    pub(super) surroundings: Surroundings,
    pub(super) summary: PlanSummary,
    pub(super) drives: Vec<PreparedDrive>,
    /// They follow the others in the summary.
    pub(super) appends: Vec<AppendDrive>,
    pub(super) context: guard::Context,
    pub(super) plan: Plan,
    /// Ids of drives that this run does not write to.
    pub(super) bystanders: Vec<String>,
    /// Hash of the user's password for a new drive, from which the stretching starts; `None` without one.
    pub(super) user_password: Option<Key32>,
    /// The list of all files, begun: its place was tried.
    pub(super) list: Option<Output>,
}

/// Contents of the session's plan file, including those not written yet.
#[derive(Debug)]
pub struct Plan {
    /// Layout options of the drives.
    pub recipe: Recipe,
    /// All blobs of the session.
    pub catalog: Arc<Catalog>,
    /// Files that are on no drive yet.
    pub unplaced: Vec<u32>,
    /// Valid part of the existing file; `None`: the session is new.
    pub saved: Option<Prefix>,
    /// Numbers of drives of each kind, the last ones, that are not in the file yet.
    pub joins: (usize, usize),
    /// SHA-256 of the journal at planning.
    pub seen: [u8; 32],
    /// Drives whose files are moved to others.
    pub given_up: Vec<String>,
    /// Drives that earlier runs finished.
    pub done: Vec<String>,
    /// Those of them that can be rolled back as long as the session is open.
    pub added: Vec<String>,
}

impl Prepared {
    /// The account's facts about each file, if the session is an export.
    pub fn exported(&self) -> Option<Arc<Exported>> {
        self.plan.recipe.exported.clone()
    }

    /// The files of the session.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.plan.catalog)
    }

    /// Files of the session that are on no drive, by index in the catalog.
    pub fn unplaced(&self) -> &[u32] {
        &self.plan.unplaced
    }

    /// Drives that this run writes, each with its files and their paths on it, by index in the catalog.
    pub fn placed(&self) -> Vec<(String, Vec<(u32, String)>)> {
        let paths = |drive: &PreparedDrive| {
            let tree = drive.layout.tree();
            let path = |i: u32| match tree.kind(i) {
                FileKind::Blob(file) => {
                    let mut path = String::new();
                    tree.drive_path(i, &mut path);
                    Some((file, path))
                }
                FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => None,
            };
            (drive.rules.drive_id.clone(), (0..tree.blob_count()).filter_map(path).collect())
        };
        self.drives.iter().map(paths).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "what a session consists of")]
    pub(super) fn new(
        request: PrepRequest,
        cipher: Cipher,
        surroundings: Surroundings,
        planned: Planned,
        context: guard::Context,
        plan: Plan,
        skipped: Vec<Skipped>,
        warnings: Vec<Problem>,
    ) -> Result<Self, Problems> {
        let Planned { drives, appends, unneeded, .. } = planned;
        let files = plan.catalog.files();
        let mut summary = PlanSummary {
            session: request.session.clone(),
            cipher: match &request.windows {
                Some(windows) if windows.is_plain => "none".into(),
                _ => request.cipher.clone(),
            },
            drives: drives.iter().map(planner::summarize).chain(appends.iter().map(|one| one.plan.clone())).collect(),
            files: files.len() as u64,
            data: ByteLen(files.iter().map(|file| file.len.0).sum()),
            skipped,
            warnings,
            unplaced: Vec::new(),
            windows: request.windows.is_some(),
        };
        preflight::images(&summary.drives, plan.recipe.wipe_free).into_result()?;
        for target in &unneeded {
            summary.warnings.push(
                Problem::new(Kind::Usage, "everything fits on the other drives; this one is left as it is")
                    .drive(&target.facts.name),
            );
        }
        if !plan.unplaced.is_empty() {
            let bytes: u64 = plan.unplaced.iter().map(|&f| files[f as usize].len.0).sum();
            summary.warnings.push(
                Problem::new(
                    Kind::Refused,
                    format!("{} of {} on no drive yet", counted(plan.unplaced.len() as u64, "file"), ByteLen(bytes)),
                )
                .advice("they wait for drives: the same --id with --additional-driveset FILE"),
            );
        }
        let bystanders = unneeded.into_iter().map(|target| target.facts.drive_id);
        let before = [&plan.given_up, &plan.done, &plan.added].into_iter().flatten().cloned();
        let bystanders = bystanders.chain(before).collect();
        let (user_password, list) = (None, list::begin(&request)?);
        Ok(Self {
            request,
            cipher,
            surroundings,
            summary,
            drives,
            appends,
            context,
            plan,
            bystanders,
            user_password,
            list,
        })
    }
}
