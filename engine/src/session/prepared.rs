//! A session that has passed preflight.

use std::sync::Arc;

use crate::checkpoint::Prefix;
use crate::crypt::Cipher;
use crate::crypt::secret::Key32;
use crate::device::guard;
use crate::files::output::Output;
use crate::plan::account::Exported;
use crate::plan::catalog::Catalog;
use crate::report::{Advice, Kind, PlanSummary, Problem, Problems, Setting, Skipped, counted};
use crate::request::PrepRequest;
use crate::session::planning::Planned;
use crate::session::preflight;
use crate::surroundings::Surroundings;
use crate::units::ByteLen;
use crate::work::drive_work::DriveWork;
use crate::work::list;
use crate::work::recipe::Recipe;

/// A session that has passed preflight. Nothing has been written yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request: PrepRequest,
    pub(super) cipher: Cipher,
    pub(super) surroundings: Surroundings,
    pub(super) summary: PlanSummary,
    /// The work on each drive, in the order of the summary.
    pub(super) works: Vec<Box<dyn DriveWork>>,
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
    /// Number of drives, the last ones, that are not in the file yet.
    pub joins: usize,
    /// SHA-256 of the journal at planning.
    pub seen: [u8; 32],
    /// Drives whose files are moved to others.
    pub given_up: Vec<String>,
    /// Drives that earlier runs finished.
    pub done: Vec<String>,
    /// Those of them that can be rolled back as long as the session is open.
    pub added: Vec<String>,
}

impl Plan {
    /// The plan of a new session, of which nothing is saved yet.
    pub fn new(recipe: Recipe, catalog: Arc<Catalog>, unplaced: Vec<u32>, seen: [u8; 32], joins: usize) -> Self {
        let (given_up, done, added) = Default::default();
        Self { recipe, catalog, unplaced, saved: None, joins, seen, given_up, done, added }
    }
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
        let Planned { works, unneeded, .. } = planned;
        let files = plan.catalog.files();
        let mut summary = PlanSummary {
            session: request.session.clone(),
            cipher: match &request.windows {
                Some(windows) if windows.is_plain => "none".into(),
                _ => request.cipher.clone(),
            },
            drives: works.iter().map(|work| work.summary()).collect(),
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
                .advice(
                    Advice::from("they wait for drives: the same ")
                        + Setting::Id
                        + " with "
                        + Setting::AdditionalDriveset,
                ),
            );
        }
        let bystanders = unneeded.into_iter().map(|target| target.facts.drive_id);
        let before = [&plan.given_up, &plan.done, &plan.added].into_iter().flatten().cloned();
        let bystanders = bystanders.chain(before).collect();
        let (user_password, list) = (None, list::begin(&request)?);
        Ok(Self { request, cipher, surroundings, summary, works, context, plan, bystanders, user_password, list })
    }
}
