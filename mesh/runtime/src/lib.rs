//! What every process here needs to start, be observed and stop.
