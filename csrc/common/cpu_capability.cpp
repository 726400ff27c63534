// Which copy of the CPU kernels this processor runs. Compiled for the baseline only.
#include "cpu_capability.h"

#include <cstdlib>
#include <string_view>

namespace ddarts {

static CpuCapability of_processor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return CpuCapability::avx2;
#endif
  return CpuCapability::baseline;
}

CpuCapability cpu_capability() {
  static const CpuCapability chosen = [] {
    const char* wish = std::getenv("DDARTS_CPU_CAPABILITY");
    return wish != nullptr && std::string_view(wish) == "baseline" ? CpuCapability::baseline : of_processor();
  }();
  return chosen;
}

}  // namespace ddarts
