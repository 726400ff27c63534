// Stacks that one operating-system thread switches between: each emulated CUDA thread that waits keeps its own.
#pragma once

#include "laboratory.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error("CUDA emulation: " + what); }

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stack_bytes = 256 * 1024;
#else
constexpr size_t stack_bytes = 64 * 1024;
#endif

#if defined(__x86_64__)
#if defined(__clang__)
#define DDARTS_OPAQUE noinline
#else
#define DDARTS_OPAQUE noipa  // other threads run meanwhile: the caller may assume nothing of what this leaves unchanged
#endif
// Saves the callee-saved registers on this stack, its pointer in *save (rdi), and resumes the stack `load` (rsi).
__attribute__((naked, DDARTS_OPAQUE)) inline void switch_stack(void** /*save*/, void* /*load*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

// With an entry: a fresh stack that starts there. Without: the stack of whoever switches away from it first.
class Fiber {
 public:
  Fiber() = default;
  explicit Fiber(void (*entry)()) {
    void* memory =
        ::mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stack of a thread");
    stack_ = static_cast<char*>(memory);
    laboratory::add_stack(stack_, stack_bytes);
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_ + stack_bytes) & ~uintptr_t(15));
    *--top = nullptr;                         // return address of entry, never used
    *--top = reinterpret_cast<void*>(entry);  // where switch_stack returns to
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    pointer_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = stack_bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#endif
  }
  ~Fiber() {
    if (stack_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_, stack_bytes);
#endif
    laboratory::drop_stack(stack_);
    ::munmap(stack_, stack_bytes);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void switch_to(Fiber& other) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack_, other.stack_ ? other.stack_ : host_bottom_,
                                   other.stack_ ? stack_bytes : host_size_);
#endif
#if defined(__x86_64__)
    switch_stack(&pointer_, other.pointer_);
#else
    swapcontext(&context_, &other.context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(fake_stack_, &bottom, &size);
#endif
  }
  // First thing on a fresh stack; `from_host` says that the host's own stack switched here.
  static void started([[maybe_unused]] bool from_host) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (from_host) host_bottom_ = bottom, host_size_ = size;
#endif
  }

 private:
  char* stack_ = nullptr;
#if defined(__x86_64__)
  void* pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  inline static const void* host_bottom_ = nullptr;
  inline static size_t host_size_ = 0;
};

}  // namespace emulation
