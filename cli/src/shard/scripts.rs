//! Scripts that start the shards of a plan on the engine that a site runs already. To read and to change: consent, paths
//! and limits are the operator's.

use std::collections::BTreeMap;
use std::path::Path;

use super::task::ShardWork;
use super::{Index, ShardEntry};
use crate::commands::about::quoted;

/// Meaning of the exit codes for a queue.
const CODES: &str = "\
# Exit codes: 0 done; 130 and 6 run again, where they resume; 4 (a drive failed) and all others wait for a person;
# 3 (done, files left out) is never run again by itself.";

/// Engines with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Slurm: one job array a host.
    Slurm,
    /// GNU parallel over ssh.
    Parallel,
    /// Kubernetes: one Job a drive.
    Kubernetes,
    /// Ansible: one play a host.
    Ansible,
}

/// Shards by host; those without one under the empty name.
fn by_host(index: &Index) -> BTreeMap<&str, Vec<&ShardEntry>> {
    let mut hosts: BTreeMap<&str, Vec<&ShardEntry>> = BTreeMap::new();
    for entry in &index.shards {
        hosts.entry(entry.host.as_deref().unwrap_or_default()).or_default().push(entry);
    }
    hosts
}

fn numbers(entries: &[&ShardEntry], separator: &str) -> String {
    let numbers: Vec<String> = entries.iter().map(|entry| entry.number.to_string()).collect();
    numbers.join(separator)
}

/// A name of lower-case letters, digits and hyphens, as Kubernetes and DNS want it (RFC 1123).
fn label(text: &str) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    out.truncate(50);
    out.trim_matches('-').to_owned()
}

/// Lines that only the shards of a session have: one is given where drives are erased, one where they are gathered.
fn of_session<'a>(index: &Index, lines: &'a str) -> &'a str {
    if index.work.writes() { lines } else { "" }
}

/// File of the key in the scripts of an export: an example.
const KEY_FILE: &str = "/etc/dray/account.key";

/// Words that lead to the account of an export.
fn account(index: &Index) -> Vec<&str> {
    let endpoint = index.export.as_ref().map(|export| export.endpoint.as_str());
    endpoint.map(|endpoint| vec!["--endpoint", endpoint, "--account-key-file", KEY_FILE]).unwrap_or_default()
}

/// The same behind a command of the shell.
fn account_in_shell(index: &Index) -> String {
    account(index).into_iter().map(|word| format!(" {}", quoted(word))).collect()
}

/// A line on the credential, for the head of a script.
fn credential(index: &Index) -> String {
    match index.export {
        Some(_) => {
            format!("# The credential lies on each host, in {KEY_FILE}; any option of an account will do instead.\n")
        }
        None => String::new(),
    }
}

/// The shards in a sentence.
fn called(index: &Index) -> String {
    match index.work {
        ShardWork::Prepare => format!("session {}", index.session),
        ShardWork::Export => format!("export {}", index.session),
        ShardWork::Command(_) => format!("dray {}", index.session),
    }
}

/// The script, or the description that the engine reads.
pub fn render(engine: Engine, index: &Index, dir: &Path, docks: u32) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let dir = dir.display().to_string();
    match engine {
        Engine::Slurm => slurm(index, &dir, docks),
        Engine::Parallel => parallel(index, &dir, docks),
        Engine::Kubernetes => kubernetes(index, &dir),
        Engine::Ansible => ansible(index, &dir),
    }
}

const SLURM_CONSENT: &str = r#"# Consent to erase drives that hold something: their serials, as in --yes "SERIAL,SERIAL".
consent=()
"#;

const SLURM_MERGE: &str = r#"
dependency=$(IFS=:; echo "${ids[*]}")
sbatch --parsable --job-name=dray-merge --dependency="afterany:$dependency" --output="$shards/slurm-merge.log" \
    --wrap="dray shard merge $shards --journal $shards/merged.jrn"
"#;

fn slurm(index: &Index, dir: &str, docks: u32) -> String {
    let mut submits = String::new();
    for (host, entries) in by_host(index) {
        submits.push_str(&format!("submit {} {} {docks}\n", quoted(host), numbers(&entries, ",")));
    }
    format!(
        r#"#!/bin/bash
# Submits the shards of {called} to Slurm: one job array a host, at most {docks} drives at once on each.
{gathers}{credential}{CODES}
set -euo pipefail
shards={dir}
{consent}
ids=()
submit() {{ # host, numbers of shards, docks
    ids+=("$(sbatch --parsable --job-name=dray --array="$2%$3" ${{1:+--nodelist="$1"}} \
        --requeue --signal=B:TERM@120 --output="$shards/slurm-%A_%a.log" --open-mode=append \
        --export=ALL,SHARDS="$shards"{exported} <<'TASK'
#!/bin/bash
# The shell passes the signal on and waits: the drive stops at a checkpoint (130).
trap 'kill -TERM "$child" 2>/dev/null' TERM
{unquoted}dray shard run "$SHARDS" --index "$SLURM_ARRAY_TASK_ID" --silent{account}{passed} &
child=$!
code=130
while true; do
    wait "$child" && code=0 || code=$?
    kill -0 "$child" 2>/dev/null || break
done
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
case $code in
    6 | 130) scontrol requeue "$task" ;;
    0 | 3) ;;
    *) scontrol requeuehold "$task" ;;
esac
exit "$code"
TASK
)")
}}

# The same number in two arrays would be two jobs for one drive: each shard stands in one line.
{submits}{merge}"#,
        called = called(index),
        credential = credential(index),
        account = account_in_shell(index),
        gathers = of_session(index, "# A last job gathers the finished drives when all arrays have ended.\n"),
        consent = of_session(index, SLURM_CONSENT),
        exported = of_session(index, r#",CONSENT="${consent[*]-}""#),
        unquoted = of_session(index, "# shellcheck disable=SC2086\n"),
        passed = of_session(index, " $CONSENT"),
        merge = of_session(index, SLURM_MERGE),
        dir = quoted(dir),
    )
}

const PARALLEL_CONSENT: &str = r#"# Consent to erase drives that hold something: their serials, as in --yes "SERIAL,SERIAL".
consent=""
"#;

fn parallel(index: &Index, dir: &str, docks: u32) -> String {
    let mut runs = String::new();
    for (host, entries) in by_host(index) {
        let far = if host.is_empty() { String::new() } else { format!(" --sshlogin {docks}/{}", quoted(host)) };
        runs.push_str(&format!("start{far} ::: {}\n", numbers(&entries, " ")));
    }
    format!(
        r#"#!/bin/bash
# Runs the shards of {called} with GNU parallel, at most {docks} drives at once on each host; hosts by ssh.
{credential}{CODES}
# Ending `parallel` drops the connection, and the far program with it, without a checkpoint of its own: it resumes at the
# last one. To stop at once and cleanly, send SIGTERM to `dray` on its host. Run this script again to resume: drives that are
# done are passed over.
set -uo pipefail
shards={dir}
{consent}
run="dray shard run $(printf %q "$shards") --index {{}} --silent{account}{passed}"
start() {{
    local far=()
    [ "$1" = ::: ] || {{ far=("$1" "$2"); shift 2; }}
    parallel --jobs {docks} --line-buffer --tag "${{far[@]}}" "$run" "$@" &
}}
{runs}
wait
{end}
"#,
        called = called(index),
        credential = credential(index),
        account = account_in_shell(index),
        consent = of_session(index, PARALLEL_CONSENT),
        passed = of_session(index, " $consent"),
        end = match index.work {
            ShardWork::Prepare | ShardWork::Export => r#"dray shard merge "$shards" --journal "$shards/merged.jrn""#,
            ShardWork::Command(_) => r#"dray shard status "$shards""#,
        },
        dir = quoted(dir),
    )
}

fn kubernetes(index: &Index, dir: &str) -> String {
    let mut out = format!(
        "# The shards of {}: one Job a drive. Each needs the node that has the drive, the directory of the shards\n\
         # and the files that it reads at the same paths, and the device. Put your image and volumes in place of the\n\
         # examples.\n{}{CODES}\n",
        called(index),
        credential(index)
    );
    let account: String = account(index).into_iter().map(|word| format!(", {}", yaml(word))).collect();
    for entry in &index.shards {
        let name = format!("dray-{}-{:04}", label(&index.session), entry.number);
        let node = match &entry.host {
            Some(host) => format!("      nodeSelector:\n        kubernetes.io/hostname: {}\n", yaml(host)),
            None => String::new(),
        };
        out.push_str(&format!(
            r#"---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  labels:
    app: dray
spec:
  completions: 1
  parallelism: 1
  backoffLimit: 6
  podFailurePolicy:
    rules:
      # A drive that failed, and every other error, is for a person; files left out are no reason to run again.
      - action: FailJob
        onExitCodes:
          operator: NotIn
          values: [6, 130]
  template:
    metadata:
      labels:
        app: dray
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 120
{node}      containers:
        - name: dray
          image: registry.example.com/dray:latest
          command: ["dray"]
          args: ["shard", "run", {dir}, "--index", "{number}", "--silent"{account}]
          securityContext:
            privileged: true
          volumeMounts:
            - name: shards
              mountPath: {dir}
            - name: sources
              mountPath: /data
            - name: dev
              mountPath: /dev
      volumes:
        - name: shards
          hostPath:
            path: {dir}
        - name: sources
          hostPath:
            path: /data
        - name: dev
          hostPath:
            path: /dev
"#,
            dir = yaml(dir),
            number = entry.number,
        ));
    }
    out
}

fn ansible(index: &Index, dir: &str) -> String {
    let mut out = format!(
        "# The shards of {}: one play a host, one drive after the other on each.\n{}{CODES}\n---\n",
        called(index),
        credential(index)
    );
    let account: String = account(index).into_iter().map(|word| format!(", {}", yaml(word))).collect();
    for (host, entries) in by_host(index) {
        let host = if host.is_empty() { "localhost" } else { host };
        out.push_str(&format!(
            r#"- name: Run the shards of {host}
  hosts: {host_yaml}
  become: true
  gather_facts: false
  tasks:
    - name: Run the shard
      ansible.builtin.command:
        argv: [dray, shard, run, {dir}, --index, "{{{{ item }}}}", --silent{account}]
      loop: [{numbers}]
      register: run
      changed_when: run.rc in [0, 3]
      failed_when: run.rc not in [0, 3]
      until: run.rc not in [6, 130]
      retries: 20
      delay: 60
"#,
            host_yaml = yaml(host),
            dir = yaml(dir),
            numbers = numbers(&entries, ", "),
        ));
    }
    if !index.work.writes() {
        return out;
    }
    out.push_str(&format!(
        r#"- name: Gather the finished drives
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Merge
      ansible.builtin.command:
        argv: [dray, shard, merge, {dir}, --journal, {journal}]
"#,
        dir = yaml(dir),
        journal = yaml(&format!("{dir}/merged.jrn")),
    ));
    out
}

/// A YAML scalar in double quotes (YAML 1.2, 7.3.1).
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
