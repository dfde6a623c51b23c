//! What several pages that use one worker have in common: a model that one of them has loaded is the others' too. Everything
//! else (runs, sweeps, what is under way) is each page's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::session::Session;
use super::{RequestId, cancel, post, within_ms};
use crate::protocol::{BackendChoice, ErrorReport, ModelSource};

/// Between two looks at whether another page has loaded the model, milliseconds.
const LOOK_MS: i32 = 40;

thread_local! {
    /// Each connection's session.
    static SESSIONS: RefCell<BTreeMap<u32, Rc<RefCell<Session>>>> = RefCell::default();
    /// Loads under way.
    static LOADING: RefCell<Vec<Loading>> = RefCell::default();
}

/// A load under way.
struct Loading {
    id: RequestId,
    source: ModelSource,
    backend: BackendChoice,
}

/// A load's place among those under way, for as long as it is held.
pub struct Held(RequestId);

impl Drop for Held {
    fn drop(&mut self) {
        LOADING.with_borrow_mut(|loading| loading.retain(|other| other.id != self.0));
    }
}

/// Whether another page had a model.
pub enum TakeOver {
    /// It did, and the model is this page's too.
    Done,
    /// None has it: it is to be loaded, and counts as under way for as long as this is held.
    ToLoad(Held),
}

/// The session of a connection; a new one for a new connection.
pub fn session_of(connection: u32) -> Rc<RefCell<Session>> {
    let new = || Rc::new(RefCell::new(Session::of(connection)));
    SESSIONS.with_borrow_mut(|sessions| Rc::clone(sessions.entry(connection).or_insert_with(new)))
}

/// A page is gone: its requests end, and what it alone used is freed.
pub fn close(connection: u32) {
    cancel::close(connection);
    post::close(connection);
    SESSIONS.with_borrow_mut(|sessions| sessions.remove(&connection));
}

/// Takes a model over from another page that has loaded it from the same place for the same engine; waits for one that is about to.
/// Fails when the request is cancelled meanwhile.
pub async fn take_over(
    session: &RefCell<Session>,
    id: RequestId,
    source: &ModelSource,
    backend: BackendChoice,
) -> Result<TakeOver, ErrorReport> {
    loop {
        let others = SESSIONS.with_borrow(|sessions| sessions.values().cloned().collect::<Vec<_>>());
        let is_its =
            |other: &&Rc<RefCell<Session>>| other.borrow().has_loaded(id.connection, source, backend);
        if let Some(other) = others.iter().find(is_its) {
            session.borrow_mut().adopt(&other.borrow());
            return Ok(TakeOver::Done);
        }
        let is_under_way = LOADING.with_borrow(|loading| {
            loading.iter().any(|other| {
                other.id.connection != id.connection && other.source == *source && other.backend == backend
            })
        });
        if !is_under_way {
            let own = Loading { id, source: source.clone(), backend };
            LOADING.with_borrow_mut(|loading| loading.push(own));
            return Ok(TakeOver::ToLoad(Held(id)));
        }
        within_ms(LOOK_MS, std::future::pending::<()>()).await;
        cancel::check(id)?;
    }
}
