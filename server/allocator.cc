// How the server's allocator, jemalloc, is set up. Batches come and go at the rate of the wire, and
// memory fresh from the system has to be cleared by it first, which for large batches took a third
// of the server's time. jemalloc keeps what was freed for some ten seconds, for the next ones.

// jemalloc reads this before main. Threads of its own give back what has not been used again, also
// when nothing is allocated any more.
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "background_thread:true";
}
