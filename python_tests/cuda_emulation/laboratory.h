// What the emulation tells the laboratory (laboratory.cpp), which sees every access of every lane in a library that is
// compiled with -DDDARTS_LABORATORY and, its kernels, with -fsanitize=thread. Nothing without that.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>

namespace emulation {

struct Span {
  const char* begin = nullptr;
  size_t size = 0;
};

namespace laboratory {

#if defined(DDARTS_LABORATORY)

// A kernel's own code runs. Volatile: the hooks read it, which the compiler does not see.
extern volatile bool tracing;

// The emulation's own accesses, inside calls from a kernel, are not the kernel's.
class Pause {
 public:
  Pause() : was_(tracing) { tracing = false; }
  ~Pause() { tracing = was_; }
  Pause(const Pause&) = delete;
  Pause& operator=(const Pause&) = delete;

 private:
  bool was_;
};
struct Trace {
  Trace() { tracing = true; }
  ~Trace() { tracing = false; }
};
struct Atomic {
  Atomic();
  ~Atomic();
};

void add_stack(const void* begin, size_t size);
void drop_stack(const void* begin);
void begin_launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes);
void begin_block(uint64_t block, int threads, Span dynamic_shared, Span static_shared);
void end_launch();
void passed_barrier(int thread);
void passed_collective(int thread);    // lanes are together again, but memory is not ordered
void passed_warp_barrier(int thread);  // __syncwarp, which orders it

#else

struct Pause {
  Pause() {}
  ~Pause() {}
};
struct Trace {
  Trace() {}
  ~Trace() {}
};
struct Atomic {
  Atomic() {}
  ~Atomic() {}
};
inline void add_stack(const void*, size_t) {}
inline void drop_stack(const void*) {}
inline void begin_launch(const void*, dim3, dim3, size_t) {}
inline void begin_block(uint64_t, int, Span, Span) {}
inline void end_launch() {}
inline void passed_barrier(int) {}
inline void passed_collective(int) {}
inline void passed_warp_barrier(int) {}

#endif

}  // namespace laboratory
}  // namespace emulation
