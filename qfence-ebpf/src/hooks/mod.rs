//! One module for each group of hooks: the actions of their programs.

pub(crate) mod bind;
pub(crate) mod call;
pub(crate) mod device;
pub(crate) mod frame;
pub(crate) mod lead;
pub(crate) mod listing;
pub(crate) mod manager;
pub(crate) mod opened;
pub(crate) mod options;
pub(crate) mod packet;
pub(crate) mod received;
pub(crate) mod socket;
pub(crate) mod unix;
