// crun raises the limit of locked memory, which needs a capability that root may lack, as in a container. The kernels of
// the tests count the memory of programs and maps otherwise. Preloaded, this lets the calls succeed without effect.
struct rlimit;

int setrlimit(int resource, const struct rlimit *limits) {
    (void)resource, (void)limits;
    return 0;
}

int setrlimit64(int resource, const struct rlimit *limits) {
    return setrlimit(resource, limits);
}
