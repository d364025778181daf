// A libcuda that does nothing: every call succeeds, device memory is the host's, launches are written down.
// For testing the way to a GPU where there is none; functions that are not here answer with success.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
#define CU __attribute__((visibility("default"))) int
#define STUB __attribute__((visibility("default"))) long

enum { MOST = 4096, WORDS = 16 };
static struct { unsigned blocks, threads, near; u64 stream, words[WORDS]; } launched[MOST];
static long maps, launches, live, loads, waits, attributes, fail_after = -1;
static struct { u64 address, bytes; } blocks[MOST];
static int objects[64];
static void *current;

STUB stub_maps(void) { return maps; }
STUB stub_launches(void) { return launches; }
STUB stub_word(long launch, int i) { return launched[launch].words[i]; }
STUB stub_blocks(long launch) { return launched[launch].blocks; }
STUB stub_threads(long launch) { return launched[launch].threads; }
STUB stub_near(long launch) { return launched[launch].near; }
STUB stub_stream(long launch) { return launched[launch].stream; }
STUB stub_live(void) { return live; }
STUB stub_loads(void) { return loads; }
STUB stub_waits(void) { return waits; }
STUB stub_attributes(void) { return attributes; }
STUB stub_fail_after(long n) { fail_after = n; return 0; }

static int nothing(void) { return 0; }
CU cuInit(unsigned flags) { return 0; }
CU cuDriverGetVersion(int *v) { *v = 13000; return 0; }
CU cuDeviceGetCount(int *n) { *n = 1; return 0; }
CU cuDeviceGet(int *d, int i) { *d = i; return 0; }
CU cuDeviceGetAttribute(int *v, int a, int d) {
  switch (a) {
    case 75: *v = 9; break;       // compute capability 9.0
    case 76: *v = 0; break;
    case 16: *v = 132; break;     // multiprocessors
    case 97: *v = 232448; break;  // shared memory that a block may ask for
    default: *v = 1;
  }
  return 0;
}
CU cuDevicePrimaryCtxRetain(void **c, int d) { *c = objects; return 0; }
CU cuCtxGetCurrent(void **c) { *c = current; return 0; }
CU cuCtxSetCurrent(void *c) { current = c; return 0; }
CU cuGetErrorName(int e, const char **s) { *s = e == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_STUB"; return 0; }
CU cuGetErrorString(int e, const char **s) { *s = "as the test asked"; return 0; }
CU cuDeviceGetDefaultMemPool(void **p, int d) { *p = objects + 1; return 0; }
CU cuMemAllocFromPoolAsync(u64 *p, size_t n, void *pool, void *stream) {
  if (fail_after >= 0 && fail_after-- == 0) { fail_after = 0; return 2; }
  *p = (u64)aligned_alloc(512, (n + 511) / 512 * 512);
  for (int i = 0; i < MOST; i++)
    if (!blocks[i].address) { blocks[i].address = *p; blocks[i].bytes = n; break; }
  live += n;
  return 0;
}
CU cuMemFreeAsync(u64 p, void *stream) {
  for (int i = 0; i < MOST; i++)
    if (blocks[i].address == p) { live -= blocks[i].bytes; blocks[i].address = 0; free((void *)p); break; }
  return 0;
}
CU cuMemcpyHtoDAsync_v2(u64 d, const void *s, size_t n, void *stream) { memcpy((void *)d, s, n); return 0; }
CU cuMemcpyDtoHAsync_v2(void *d, u64 s, size_t n, void *stream) { memcpy(d, (void *)s, n); return 0; }
CU cuMemcpyDtoDAsync_v2(u64 d, u64 s, size_t n, void *stream) { memcpy((void *)d, (void *)s, n); return 0; }
CU cuEventCreate(void **e, unsigned flags) { *e = objects + 2; return 0; }
CU cuStreamWaitEvent(void *s, void *e, unsigned flags) { waits++; return 0; }
CU cuLibraryLoadData(void **l, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m) {
  loads++; *l = objects + 3; return 0;
}
CU cuLibraryGetKernel(void **k, void *l, const char *name) { *k = objects + 4; return 0; }
CU cuKernelGetFunction(void **f, void *k) { *f = objects + 5; return 0; }
CU cuKernelSetAttribute(int a, int v, void *k, int d) { attributes++; return 0; }
CU cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned near,
                  void *stream, void **words, void **extra) {
  long n = launches++ % MOST;
  launched[n].blocks = gx, launched[n].threads = bx, launched[n].near = near, launched[n].stream = (u64)stream;
  for (int i = 0; i < WORDS && words[i]; i++) launched[n].words[i] = *(u64 *)words[i];
  return 0;
}
CU cuTensorMapEncodeTiled(u64 *map, int type, unsigned axes, u64 address, const u64 *sizes, const u64 *strides,
                          const unsigned *box, const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
  memset(map, 0, 128);
  map[0] = address, map[1] = axes, map[2] = type, map[3] = swizzle;
  for (unsigned i = 0; i < axes && i < 4; i++) map[4 + i] = sizes[i], map[8 + i] = i ? strides[i - 1] : 0, map[12 + i] = box[i];
  maps++;
  return 0;
}
static int find(const char *name, void **function) {
  static void *self;
  Dl_info info;
  if (!self) { dladdr((void *)find, &info); self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD); }
  const char *versions[] = {"_v3", "_v2", ""};
  char text[128];
  *function = 0;
  for (int i = 0; i < 3 && !*function; i++) {
    snprintf(text, sizeof text, "%s%s", name, versions[i]);
    *function = dlsym(self, text);
  }
  if (!*function) *function = (void *)nothing;
  return 0;
}
CU cuGetProcAddress(const char *n, void **f, int v, u64 flags) { return find(n, f); }
CU cuGetProcAddress_v2(const char *n, void **f, int v, u64 flags, int *status) { if (status) *status = 0; return find(n, f); }
