//! Decides on each question, and puts addresses in force before an answer has them.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use domain::base::iana::{ExtendedErrorCode, Rcode};
use qfence_common::resolved::Grant;

use super::{
    answer::Answer,
    cache::Key,
    counts::Counts,
    ends::{Ends, Lookup, Permission, Transport, Verdict},
    flight::{Flights, Outcome},
    found::{Found, Kind},
    opening::Opened,
    question::Question,
};
use crate::policy::domain::DomainName;

/// How long clients keep a refusal in mind, in seconds: a change of the policy is seen soon.
const REFUSAL: u32 = 5;

/// The longest time to live of an answer, in seconds: clients ask again while its addresses are in force.
const LONGEST_TTL: u32 = 300;

/// An address is in force for the time to live, which counts as at least this, in seconds.
const SHORTEST: u32 = 30;

/// And for this long after it: a client may have waited before it connects.
const GRACE: u32 = 30;

/// The longest time that an answer puts an address in force, in seconds.
const LONGEST: u32 = 3600;

/// A name that browsers look up before they use a DNS server of their own. If it does not exist, they do not.
const CANARY: &str = "use-application-dns.net";

/// A name under which clients look for an encrypted way to their DNS server (RFC 9462). There is none.
const DISCOVERY: &str = "_dns.resolver.arpa";

/// The source of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) source: SocketAddr,
    pub(super) transport: Transport,
}

/// What answers a question.
#[derive(Debug)]
pub(super) enum Step {
    /// This does.
    Answer(Answer),
    /// The nameservers, if the rules still allow the name when they have answered.
    Ask(Key),
}

/// The desk.
pub(super) struct Desk {
    pub(super) ends: Ends,
    pub(super) flights: Rc<Flights>,
    pub(super) counts: Arc<Counts>,
}

impl Desk {
    /// Answers a question, unless nameservers must be asked.
    pub(super) fn first(&self, question: &Question, from: Origin) -> Step {
        let Some(name) = &question.name else {
            return Step::Answer(self.refused(question, from, None));
        };
        match name.as_str() {
            CANARY => return Step::Answer(Answer::negative(Rcode::NXDOMAIN, REFUSAL)),
            DISCOVERY => return Step::Answer(Answer::negative(Rcode::NOERROR, REFUSAL)),
            _ => {}
        }
        let kind = Kind::of(question.kind);
        let permission = match (self.permission(name), name.host_of_service()) {
            // Its answer is empty in any case, so it is not worth a line that a name was refused.
            (Err(rule), Some(host)) if kind.is_none() => self.permission(&host).map_err(|_| rule),
            (permission, _) => permission,
        };
        let (rule, grants) = match permission {
            Ok(allowed) => allowed,
            Err(rule) => return Step::Answer(self.refused(question, from, rule)),
        };
        let Some(kind) = kind else {
            let answer = Answer::negative(Rcode::NOERROR, REFUSAL);
            self.report(
                question,
                from,
                Verdict::Allowed,
                Some(rule),
                &answer,
                Vec::new(),
            );
            return Step::Answer(answer);
        };
        let key = (name.clone(), kind);
        match self.flights.cached(&key) {
            None => Step::Ask(key),
            Some((found, left)) => {
                self.counts.cached.add();
                Step::Answer(self.found(question, from, rule, &grants, &found, left))
            }
        }
    }

    /// Answers a question to which nameservers gave an answer. The rules are asked again: they may be others now.
    pub(super) fn second(&self, question: &Question, from: Origin, outcome: &Outcome) -> Answer {
        let permission = match &question.name {
            Some(name) => self.permission(name),
            None => Err(None),
        };
        match (permission, outcome) {
            (Err(rule), _) => self.refused(question, from, rule),
            (Ok((rule, grants)), Ok(found)) => {
                self.found(question, from, rule, &grants, found, found.ttl)
            }
            (Ok((rule, _)), Err(failure)) => {
                let answer =
                    Answer::of(Rcode::SERVFAIL).because(failure.code(), failure.to_string());
                self.report(
                    question,
                    from,
                    Verdict::Failed,
                    Some(rule),
                    &answer,
                    Vec::new(),
                );
                answer
            }
        }
    }

    /// The rule that allows a name and what it opens; or the rule that does not. A name of one label is never allowed:
    /// it means another host in each network.
    fn permission(&self, name: &DomainName) -> Result<(u32, Vec<Grant>), Option<u32>> {
        match self.ends.rules.permission(name) {
            Permission::Denied { rule } => Err(Some(rule)),
            Permission::Allowed { .. } if !name.as_str().contains('.') => Err(None),
            Permission::Allowed { rule, grants } => Ok((rule, grants)),
        }
    }

    fn refused(&self, question: &Question, from: Origin, rule: Option<u32>) -> Answer {
        let text = match rule {
            Some(rule) => format!("qfence: rule {rule} does not allow this name"),
            None => "qfence: no rule can allow this name".to_owned(),
        };
        let answer =
            Answer::negative(Rcode::NXDOMAIN, REFUSAL).because(ExtendedErrorCode::FILTERED, text);
        self.report(question, from, Verdict::Denied, rule, &answer, Vec::new());
        answer
    }

    fn found(
        &self,
        question: &Question,
        from: Origin,
        rule: u32,
        grants: &[Grant],
        found: &Found,
        ttl: u32,
    ) -> Answer {
        let lasts = (ttl.max(SHORTEST) + GRACE).min(LONGEST);
        let lasts = Duration::from_secs(lasts.into());
        let name = question.name.as_ref();
        let addresses = &found.addresses;
        let opened = Opened::open(&self.ends, &self.counts, name, addresses, grants, lasts);
        let (verdict, failure) = (opened.verdict(), opened.failure());
        let Opened {
            addresses, struck, ..
        } = opened;
        let rcode = match (failure, found.no_name) {
            (Some(_), _) => Rcode::SERVFAIL,
            (None, true) => Rcode::NXDOMAIN,
            (None, false) => Rcode::NOERROR,
        };
        let mut answer = Answer {
            is_negative: addresses.is_empty() && failure.is_none(),
            aliases: found.aliases.clone(),
            addresses,
            ttl: ttl.min(LONGEST_TTL),
            ..Answer::of(rcode)
        };
        if let Some(failure) = failure {
            answer = answer.because(ExtendedErrorCode::OTHER, failure.to_owned());
        } else if let (true, Some((address, reason))) = (answer.is_negative, struck.first()) {
            let text = format!("qfence: no name opens {address}, which is of {reason}");
            answer = answer.because(ExtendedErrorCode::FILTERED, text);
            answer.ttl = REFUSAL;
        }
        self.report(question, from, verdict, Some(rule), &answer, struck);
        answer
    }

    fn report(
        &self,
        question: &Question,
        from: Origin,
        verdict: Verdict,
        rule: Option<u32>,
        answer: &Answer,
        struck: Vec<(IpAddr, &'static str)>,
    ) {
        self.ends.reporter.lookup(Lookup {
            name: question.text.as_str().into(),
            kind: question.kind.to_string().into(),
            transport: from.transport,
            source: from.source,
            verdict,
            rule,
            rcode: answer.rcode.rcode().to_int(),
            addresses: answer.addresses.clone(),
            struck,
            ttl: answer.ttl,
            error: match (verdict, &answer.error) {
                (Verdict::Failed, Some((_, why))) => Some(why.as_str().into()),
                _ => None,
            },
        });
    }
}
