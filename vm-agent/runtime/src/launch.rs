//! The fork into a plan's namespaces.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::namespaces::{self, Join, Plan};
use crate::spec::Spec;
use crate::sync::{Channel, Message};
use crate::{init, sys};

/// Forks a child that runs `main` (which never returns) in the namespaces of the plan and inside
/// the cgroup; returns its process number.
pub fn spawn(
    plan: &Plan,
    spec: &Spec,
    cgroup: Option<&OwnedFd>,
    ours: &Channel,
    theirs: Channel,
    main: &dyn Fn(Channel),
) -> Result<i32> {
    // Joining or making these acts on the children of the one who does it.
    if let Some(join) = plan.joins(namespaces::PID)
        && plan.joins(namespaces::USER).is_none()
    {
        join.enter()?;
    }
    if plan.new & namespaces::TIME != 0 {
        namespaces::make_time_namespace(spec)?;
    }
    let flags = plan.new & !(namespaces::CGROUP | namespaces::TIME);
    if plan.joins(namespaces::USER).is_some() {
        return spawn_through_user_namespace(plan, flags, cgroup, ours, theirs, main);
    }
    let visited = Visit::begin(plan)?;
    let forked = fork(flags, cgroup);
    match forked? {
        sys::Forked::Child => {
            main(theirs);
            sys::exit_now(1)
        }
        sys::Forked::Parent { pid } => {
            visited.end()?;
            Ok(pid)
        }
    }
}

fn fork(flags: u64, cgroup: Option<&OwnedFd>) -> Result<sys::Forked> {
    sys::fork(flags, cgroup.map(AsFd::as_fd)).step(|| "clone3".to_owned())
}

/// A child in a new user namespace has no rights over namespaces that the host owns: the parent
/// visits them, forks there, and goes back.
struct Visit {
    back: Vec<OwnedFd>,
}

impl Visit {
    fn begin(plan: &Plan) -> Result<Self> {
        let mut back = Vec::new();
        if plan.new & namespaces::USER == 0 {
            return Ok(Visit { back });
        }
        for (_, flag, name) in namespaces::KINDS {
            if let Some(join) = plan.joins(flag).filter(|_| flag != namespaces::PID) {
                let path = format!("/proc/self/ns/{name}");
                back.push(
                    sys::open(Path::new(&path), libc::O_RDONLY).step(|| format!("open {path}"))?,
                );
                join.enter()?;
            }
        }
        Ok(Visit { back })
    }

    fn end(self) -> Result<()> {
        use std::os::fd::AsRawFd;
        for fd in self.back {
            sys::setns(fd.as_raw_fd(), 0).step(|| "return to own namespace".to_owned())?;
        }
        Ok(())
    }
}

/// Who has joined a user namespace cannot come back: an intermediate process joins, forks the
/// real child as its sibling, and is done.
fn spawn_through_user_namespace(
    plan: &Plan,
    flags: u64,
    cgroup: Option<&OwnedFd>,
    ours: &Channel,
    theirs: Channel,
    main: &dyn Fn(Channel),
) -> Result<i32> {
    match fork(0, cgroup)? {
        sys::Forked::Child => match join_and_fork(plan, flags) {
            Err(error) => init::report(&theirs, &error),
            Ok(sys::Forked::Child) => {
                main(theirs);
                sys::exit_now(1)
            }
            Ok(sys::Forked::Parent { pid }) => {
                let sent = theirs.send(&Message::Pid(pid));
                sys::exit_now(i32::from(sent.is_err()));
            }
        },
        sys::Forked::Parent { pid } => {
            drop(theirs);
            let message = ours.receive()?;
            let _ = sys::wait(pid);
            match message {
                Message::Pid(child) => Ok(child),
                Message::Failed(text) => Err(Error::Init(text)),
                other => Err(Error::Init(format!("unexpected message {other:?}"))),
            }
        }
    }
}

fn join_and_fork(plan: &Plan, flags: u64) -> Result<sys::Forked> {
    // What the host owns must be joined before its rights are given up, what the user namespace
    // owns only after.
    let others = plan
        .join
        .iter()
        .filter(|join| join.flag != namespaces::USER);
    let late: Vec<&Join> = others.filter(|join| join.enter().is_err()).collect();
    if let Some(user) = plan.joins(namespaces::USER) {
        user.enter()?;
        init::become_root()?;
    }
    for join in late {
        join.enter()?;
    }
    fork(flags | libc::CLONE_PARENT as u64, None)
}
