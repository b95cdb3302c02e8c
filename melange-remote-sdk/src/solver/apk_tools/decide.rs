//! The state of a resolution and the rules that move it on: constraints go down to the candidates of a name and to what
//! all of them need, what became impossible goes up to whoever needs it, and then one name more is decided.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use super::universe::{NameId, Need, PackageId, Provider, Request, UNTAGGED, Universe};
use crate::apk::version;

/// Where a name waits to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Waits {
    /// It does not.
    #[default]
    Not,
    /// Decided before all others, in turn: nothing can change its one candidate any more.
    Now,
    /// Decided by rank; something may be picked for it.
    Pickable,
    /// As before, behind those; by now nothing may be picked.
    Open,
}

/// What is known of a name.
#[derive(Debug, Clone, Default)]
pub(super) struct NameState<'s> {
    pub chosen: Option<Provider<'s>>,
    pub is_decided: bool,
    /// How many need it.
    demand: u32,
    /// Counters that find what all candidates of another name have in common.
    common_need: u32,
    common_provide: u32,
    common_is_virtual: bool,
    is_dirty: bool,
    waits: Waits,
    look_at_needs: bool,
    look_at_conditions: bool,
    comes_along: bool,
    never_comes_along: bool,
    condition_needs_it: bool,
    has_options: bool,
    is_pickable: bool,
    all_who_need_it_are_decided: bool,
}

/// What is known of a package.
#[derive(Debug, Clone, Default)]
pub(super) struct PackageState {
    /// Whether it is still possible.
    is_possible: bool,
    conflicts: u32,
    tags_allowed: u64,
    tag_fits: bool,
    tag_is_preferred: bool,
    in_last_group: bool,
    in_group: bool,
    comes_along: bool,
    never_comes_along: bool,
    pub failed: bool,
}

/// Why a package is no longer possible.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause<'s> {
    /// A constraint, of a package or a request.
    Constraint(Option<PackageId>, &'s str),
    /// A dependency of its that nothing can fulfil.
    Dependency(&'s str),
    /// It stands for the first name, and whoever does must stand for the second.
    Lacks(NameId),
    /// What was chosen for a name of its, if anything.
    Taken(NameId, Option<PackageId>),
}

/// Why there is no solution.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure<'s> {
    /// Nothing may be picked for a name.
    Nothing(NameId),
    /// The best for a name is not possible, or its tag was not asked for.
    Impossible(PackageId),
    /// Two that are needed stand for one name.
    Both(PackageId, Option<PackageId>, NameId),
    /// A chosen package needs what is not there.
    Unfulfilled(PackageId, &'s str),
}

/// A resolution on its way.
#[derive(Debug)]
pub(super) struct Decisions<'u, 's> {
    universe: &'u Universe<'s>,
    pub names: Vec<NameState<'s>>,
    pub packages: Vec<PackageState>,
    pub causes: Vec<Option<Cause<'s>>>,
    pub failures: Vec<Failure<'s>>,
    dirty: VecDeque<NameId>,
    now: VecDeque<NameId>,
    pickable: BTreeSet<(i64, NameId)>,
    open: BTreeSet<(i64, NameId)>,
}

impl<'u, 's> Decisions<'u, 's> {
    pub(super) fn new(universe: &'u Universe<'s>) -> Self {
        let packages: Vec<PackageState> = universe
            .packages
            .iter()
            .map(|package| {
                let usable = package.is_empty || package.tags & UNTAGGED != 0;
                PackageState {
                    is_possible: true,
                    tags_allowed: UNTAGGED,
                    tag_fits: usable,
                    tag_is_preferred: usable,
                    never_comes_along: package.install_if.is_empty(),
                    ..PackageState::default()
                }
            })
            .collect();
        let names = universe
            .names
            .iter()
            .map(|name| {
                let never = |p: &Provider<'_>| universe.packages[p.package as usize].install_if.is_empty();
                NameState { never_comes_along: name.providers.iter().all(never), ..NameState::default() }
            })
            .collect();
        let causes = vec![None; packages.len()];
        Self {
            universe,
            names,
            packages,
            causes,
            failures: Vec::new(),
            dirty: VecDeque::new(),
            now: VecDeque::new(),
            pickable: BTreeSet::new(),
            open: BTreeSet::new(),
        }
    }

    pub(super) fn decide(&mut self, world: &[Request<'s>]) {
        for request in world {
            self.constrain(None, &request.need, request.tag);
        }
        loop {
            while let Some(name) = self.dirty.pop_front() {
                let state = self.name(name);
                if std::mem::take(&mut state.is_dirty) && !state.is_decided {
                    self.reconsider(name);
                }
            }
            let Some(name) = self.next_name() else { return };
            self.choose(name);
        }
    }

    fn name(&mut self, name: NameId) -> &mut NameState<'s> {
        &mut self.names[name as usize]
    }

    fn package(&mut self, package: PackageId) -> &mut PackageState {
        &mut self.packages[package as usize]
    }

    fn providers(&self, name: NameId) -> &'u [Provider<'s>] {
        &self.universe.names[name as usize].providers
    }

    fn next_name(&mut self) -> Option<NameId> {
        while let Some(name) = self.now.pop_front() {
            if !self.names[name as usize].is_decided {
                return Some(name);
            }
        }
        self.pickable.pop_last().or_else(|| self.open.pop_last()).map(|(_, name)| name)
    }

    fn mark_dirty(&mut self, name: NameId) {
        let state = self.name(name);
        if state.is_dirty || state.is_decided || (state.demand == 0 && !state.look_at_conditions) {
            return;
        }
        state.is_dirty = true;
        self.dirty.push_back(name);
    }

    /// Puts a name where it waits to be decided; `again` when what it waits for has changed.
    fn wait(&mut self, name: NameId, again: bool) {
        let rank = self.universe.names[name as usize].rank;
        let state = &mut self.names[name as usize];
        if state.is_decided {
            return;
        }
        let now =
            state.all_who_need_it_are_decided && state.demand > 0 && state.is_pickable && !state.has_options;
        match state.waits {
            Waits::Now => return,
            Waits::Not if state.demand == 0 && !state.comes_along && !state.condition_needs_it => return,
            Waits::Not => {}
            _ if !now && !again => return,
            Waits::Pickable => _ = self.pickable.remove(&(rank, name)),
            Waits::Open => _ = self.open.remove(&(rank, name)),
        }
        state.waits = match (now, state.is_pickable) {
            (true, _) => Waits::Now,
            (false, true) => Waits::Pickable,
            (false, false) => Waits::Open,
        };
        match state.waits {
            Waits::Now => self.now.push_back(name),
            Waits::Pickable => _ = self.pickable.insert((rank, name)),
            _ => _ = self.open.insert((rank, name)),
        }
    }

    fn look_at_who_needs(&mut self, name: NameId) {
        for &needs in self.universe.needed_by(name) {
            self.name(needs).look_at_needs = true;
            self.mark_dirty(needs);
        }
    }

    fn look_at_what_comes_along(&mut self, name: NameId) {
        for &brought in &self.universe.names[name as usize].brings {
            if self.names[brought as usize].never_comes_along {
                continue;
            }
            self.name(brought).look_at_conditions = true;
            self.mark_dirty(brought);
        }
    }

    fn look_at_what_comes_along_with(&mut self, package: PackageId) {
        let package = &self.universe.packages[package as usize];
        self.look_at_what_comes_along(package.name);
        package.provides.iter().for_each(|(name, _)| self.look_at_what_comes_along(*name));
    }

    /// From now on a package is not possible.
    fn rule_out(&mut self, package: PackageId, cause: Cause<'s>) {
        self.package(package).is_possible = false;
        self.causes[package as usize].get_or_insert(cause);
        let entry = &self.universe.packages[package as usize];
        self.look_at_who_needs(entry.name);
        entry.provides.iter().for_each(|(name, _)| self.look_at_who_needs(*name));
        self.look_at_what_comes_along_with(package);
    }

    fn can_be_met(&self, by: PackageId, need: &Need<'s>) -> bool {
        let state = &self.names[need.name as usize];
        if state.is_decided {
            return need.is_met(Some(by), state.chosen);
        }
        (state.demand == 0 && need.is_met(Some(by), None))
            || self
                .providers(need.name)
                .iter()
                .any(|p| self.packages[p.package as usize].is_possible && need.is_met(Some(by), Some(*p)))
    }

    fn demand_changed(&mut self, name: NameId) {
        self.wait(name, false);
        self.look_at_what_comes_along(name);
        self.mark_dirty(name);
    }

    /// Tags go from who needs a package to it; a request's tag is also preferred.
    fn inherit(&mut self, package: PackageId, from: Option<PackageId>, tag: u64) {
        let tags = self.universe.packages[package as usize].tags;
        let allowed = from.map(|from| self.packages[from as usize].tags_allowed);
        let state = self.package(package);
        match allowed {
            Some(allowed) => state.tags_allowed |= allowed,
            None => {
                state.tags_allowed |= tag;
                state.tag_is_preferred = tags & tag != 0;
            }
        }
        state.tag_fits |= tags & state.tags_allowed != 0;
    }

    /// Applies what a package or a request needs to all candidates.
    fn constrain(&mut self, by: Option<PackageId>, need: &Need<'s>, tag: u64) {
        if !need.conflict {
            let state = self.name(need.name);
            state.demand += 1;
            if state.demand == 1 {
                self.demand_changed(need.name);
            }
        }
        for provider in self.providers(need.name) {
            let is_met = need.is_met(by, Some(*provider));
            let state = self.package(provider.package);
            state.conflicts += u32::from(!is_met);
            if state.is_possible && state.conflicts > 0 {
                self.rule_out(provider.package, Cause::Constraint(by, need.text));
            }
            if is_met {
                self.inherit(provider.package, by, tag);
            }
        }
    }

    /// A virtual name needs a priority, or somebody who asks for its provider, before one is picked.
    fn may_be_picked(&self, provider: &Provider<'_>) -> bool {
        let package = &self.universe.packages[provider.package as usize];
        provider.version.is_some() || package.priority > 0 || self.names[package.name as usize].demand > 0
    }

    /// Whether a package's conditions hold, or can no longer hold.
    fn look_at_conditions_of(&mut self, package: PackageId) {
        let universe = self.universe;
        let state = &self.packages[package as usize];
        if !state.comes_along && !state.never_comes_along {
            let (mut holds, mut fails) = (true, false);
            for need in &universe.packages[package as usize].install_if {
                let name = &mut self.names[need.name as usize];
                if !name.is_decided {
                    if need.conflict {
                        name.condition_needs_it = true;
                        self.wait(need.name, false);
                    }
                    holds = false;
                    break;
                }
                if !need.is_met(Some(package), name.chosen) {
                    (holds, fails) = (false, true);
                    break;
                }
            }
            let state = self.package(package);
            (state.comes_along, state.never_comes_along) = (holds, fails);
        }
        if self.packages[package as usize].comes_along {
            for need in &universe.packages[package as usize].install_if {
                let chosen = self.names[need.name as usize].chosen;
                self.inherit(package, chosen.map(|chosen| chosen.package), 0);
            }
        }
    }

    fn reconsider(&mut self, name: NameId) {
        let universe = self.universe;
        let state = self.name(name);
        let look_at_needs = std::mem::take(&mut state.look_at_needs);
        let look_at_conditions = std::mem::take(&mut state.look_at_conditions);
        let demand = state.demand;
        let (mut comes_along, mut never, mut pickable) = (false, true, false);
        let (mut first, mut options, mut tags_unfit) = (None, 0, 0);
        for provider in self.providers(name) {
            let id = provider.package;
            let package = &universe.packages[id as usize];
            self.package(id).in_group = false;
            if look_at_needs && self.packages[id as usize].is_possible {
                let unmet = package.depends.iter().find(|need| !self.can_be_met(id, need));
                if let Some(need) = unmet {
                    self.rule_out(id, Cause::Dependency(need.text));
                }
            }
            if !self.packages[id as usize].is_possible {
                continue;
            }
            if look_at_conditions {
                self.look_at_conditions_of(id);
            }
            let state = &mut self.packages[id as usize];
            comes_along |= state.comes_along;
            never &= state.never_comes_along;
            pickable |= state.comes_along;
            if demand == 0 {
                continue;
            }
            state.in_group = true;
            tags_unfit += u32::from(!state.tag_fits);
            first.get_or_insert(id);
            self.count_common(*provider, options);
            options += 1;
            pickable |= self.may_be_picked(provider);
        }
        let state = self.name(name);
        state.has_options = options > 1 || tags_unfit > 0;
        state.comes_along = comes_along;
        state.never_comes_along = never;
        let again = state.is_pickable != pickable;
        state.is_pickable = pickable;
        if let Some(first) = first {
            self.pass_down(name, first, options);
        }
        let who_need = universe.needed_by(name);
        let all_decided = who_need.iter().all(|needs| self.names[*needs as usize].is_decided);
        self.name(name).all_who_need_it_are_decided = all_decided;
        self.wait(name, again);
    }

    /// Counts on what this candidate needs and provides, if all before it do too.
    fn count_common(&mut self, provider: Provider<'s>, before: u32) {
        let universe = self.universe;
        let package = &universe.packages[provider.package as usize];
        for need in package.depends.iter().filter(|need| !need.conflict) {
            let state = self.name(need.name);
            if state.common_need == before {
                state.common_need = before + 1;
            }
        }
        let mut provided = |name: NameId, is_virtual: bool| {
            let state = &mut self.names[name as usize];
            if state.common_provide == before {
                state.common_provide = before + 1;
                state.common_is_virtual |= is_virtual;
            }
        };
        provided(package.name, provider.version.is_none());
        package.provides.iter().for_each(|(name, version)| provided(*name, version.is_none()));
    }

    /// What all candidates of a name have in common holds whichever is chosen.
    fn pass_down(&mut self, name: NameId, first: PackageId, options: u32) {
        let universe = self.universe;
        for provider in self.providers(name) {
            let state = self.package(provider.package);
            state.in_last_group = state.in_group;
        }
        let package = &universe.packages[first as usize];
        for need in &package.depends {
            let state = self.name(need.name);
            if std::mem::take(&mut state.common_need) != options {
                continue;
            }
            if options == 1 {
                self.constrain(Some(first), need, UNTAGGED);
            } else if state.demand == 0 {
                state.demand += 1;
                self.demand_changed(need.name);
                for provider in self.providers(need.name) {
                    self.inherit(provider.package, Some(first), 0);
                }
            }
        }
        let own = [package.name];
        let names = || own.iter().copied().chain(package.provides.iter().map(|(name, _)| *name));
        for provided in names() {
            let state = self.name(provided);
            if std::mem::take(&mut state.common_provide) == options {
                let is_virtual = state.common_is_virtual;
                self.rule_out_others(provided, name, is_virtual);
            }
        }
        names().for_each(|name| self.name(name).common_is_virtual = false);
    }

    /// Whoever stands for `name` must stand for `also` too, where virtual names do not count if `skip_virtual`.
    fn rule_out_others(&mut self, name: NameId, also: NameId, skip_virtual: bool) {
        if name == also {
            return;
        }
        for provider in self.providers(name) {
            let package = &self.universe.packages[provider.package as usize];
            let counts = |version: Option<&str>| skip_virtual && version.is_none();
            let stays = package.name == also
                || !self.packages[provider.package as usize].is_possible
                || counts(provider.version)
                || package.provides.iter().any(|(name, version)| *name == also || counts(*version));
            if !stays {
                self.rule_out(provider.package, Cause::Lacks(also));
            }
        }
    }

    fn choose(&mut self, name: NameId) {
        let universe = self.universe;
        let state = self.name(name);
        state.waits = Waits::Not;
        let (demand, comes_along) = (state.demand, state.comes_along);
        let mut best: Option<Provider<'s>> = None;
        if demand > 0 || comes_along {
            for provider in self.providers(name) {
                let state = &self.packages[provider.package as usize];
                let usable = state.comes_along && state.tag_fits && state.is_possible;
                if (demand > 0 || usable)
                    && self.may_be_picked(provider)
                    && best.is_none_or(|best| self.compare(provider, &best).is_gt())
                {
                    best = Some(*provider);
                }
            }
        }
        let Some(best) = best else {
            self.assign(name, None);
            if self.names[name as usize].demand > 0 {
                self.failures.push(Failure::Nothing(name));
            }
            return;
        };
        let id = best.package;
        let (package, state) = (&universe.packages[id as usize], &self.packages[id as usize]);
        if !state.is_possible || !state.tag_fits {
            self.fail(id, Failure::Impossible(id));
        }
        self.assign(package.name, Some(Provider { package: id, version: Some(package.version) }));
        for (name, version) in &package.provides {
            self.assign(*name, Some(Provider { package: id, version: *version }));
        }
        for need in &package.depends {
            self.constrain(Some(id), need, UNTAGGED);
        }
    }

    pub(super) fn fail(&mut self, package: PackageId, failure: Failure<'s>) {
        if !std::mem::replace(&mut self.package(package).failed, true) {
            self.failures.push(failure);
        }
    }

    /// `Greater` means that `a` is preferred.
    fn compare(&self, a: &Provider<'_>, b: &Provider<'_>) -> Ordering {
        let (sa, sb) = (&self.packages[a.package as usize], &self.packages[b.package as usize]);
        let (pa, pb) =
            (&self.universe.packages[a.package as usize], &self.universe.packages[b.package as usize]);
        sa.is_possible
            .cmp(&sb.is_possible)
            .then(sa.in_last_group.cmp(&sb.in_last_group))
            .then(sb.conflicts.cmp(&sa.conflicts))
            .then(sa.tag_fits.cmp(&sb.tag_fits))
            .then(sa.tag_is_preferred.cmp(&sb.tag_is_preferred))
            .then_with(|| version::compare(a.version.unwrap_or_default(), b.version.unwrap_or_default()))
            .then_with(|| match pa.name == pb.name {
                true => version::compare(pa.version, pb.version),
                false => Ordering::Equal,
            })
            .then(pa.priority.cmp(&pb.priority))
            .then(pb.repository.cmp(&pa.repository))
    }

    /// Decides what stands for a name.
    fn assign(&mut self, name: NameId, provider: Option<Provider<'s>>) {
        let rank = self.universe.names[name as usize].rank;
        let is_virtual = |provider: Option<Provider<'_>>| provider.is_none_or(|p| p.version.is_none());
        let state = &mut self.names[name as usize];
        if state.is_decided {
            let known = state.chosen;
            if is_virtual(known) && is_virtual(provider) {
                return;
            }
            let known = known.map(|known| known.package);
            for package in [provider.map(|provider| provider.package), known].into_iter().flatten() {
                self.fail(package, Failure::Both(package, known, name));
            }
            return;
        }
        (state.is_decided, state.chosen) = (true, provider);
        match std::mem::take(&mut state.waits) {
            Waits::Pickable => _ = self.pickable.remove(&(rank, name)),
            Waits::Open => _ = self.open.remove(&(rank, name)),
            Waits::Not | Waits::Now => {}
        }
        let demand = state.demand;
        if let Some(Provider { package, .. }) = provider
            && demand == 0
            && self.packages[package as usize].comes_along
        {
            for need in &self.universe.packages[package as usize].install_if {
                if !self.names[need.name as usize].is_decided {
                    self.constrain(Some(package), need, UNTAGGED);
                }
            }
        }
        let chosen = provider.map(|provider| provider.package);
        for other in self.providers(name) {
            let both_virtual = is_virtual(provider) && other.version.is_none();
            if Some(other.package) != chosen && !both_virtual {
                self.rule_out(other.package, Cause::Taken(name, chosen));
            }
        }
        self.look_at_who_needs(name);
        match chosen {
            Some(package) => self.look_at_what_comes_along_with(package),
            None => self.look_at_what_comes_along(name),
        }
    }
}
