//! The JSON types of version 2: builds of many packages.

mod plan;

pub use plan::{
    PlanCutView, PlanCycleStepView, PlanEdgeView, PlanJobView, PlanMissingView, PlanRefusalView,
    PlanSkipView, PlanSummaryView, PlanTradeView, PlanView,
};
