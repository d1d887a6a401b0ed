// Sums around the products of Winograd's F(4, 3), gates and weight norm, in few passes; kernels/fused.py says what for.
// Rows are of float or bfloat16 (uint16_t here); all arithmetic is in float.
#include <math.h>
#include <stdint.h>
#include <string.h>

#define FOR_ROWS(count) \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (long row = 0; row < (count); row++)
#define FOR_CHANNELS(count) _Pragma("omp simd") for (long c = 0; c < (count); c++)

static inline float load_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Round to the nearest, ties to even.
static inline uint16_t store_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float load_float(float x) { return x; }
static inline float store_float(float x) { return x; }

// 1 / (1 + exp(-x)); exp by a polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2], within 2e-7.
static inline float sigmoid(float x) {
    float y = -x * 1.44269504f;
    y = y > 126.0f ? 126.0f : (y < -126.0f ? -126.0f : y);
    float whole = nearbyintf(y);
    float r = (y - whole) * 0.69314718f;
    float high = 1.66666667e-1f + r * (4.16666667e-2f + r * (8.3333333e-3f + r * 1.3888889e-3f));
    float p = 1.0f + r * (1.0f + r * (0.5f + r * high));
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return 1.0f / (1.0f + p * power);
}

#define DEFINE(NAME, TYPE, LOAD, STORE)                                                                                \
    /* x[j] = sum over i of B'[j][i] h[row of input i]: 6 planes of tiles * dilation rows */                           \
    void inputs_##NAME(const TYPE *restrict h, TYPE *restrict x, long tiles, long dilation, long width,                \
                       long threads) {                                                                                 \
        const long plane = tiles * dilation * width, step = dilation * width;                                          \
        FOR_ROWS(tiles * dilation) {                                                                                   \
            const TYPE *restrict d = h + ((row / dilation) * 4 * dilation + row % dilation) * width;                   \
            TYPE *restrict out = x + row * width;                                                                      \
            FOR_CHANNELS(width) {                                                                                      \
                const float d0 = LOAD(d[c]), d1 = LOAD(d[c + step]), d2 = LOAD(d[c + 2 * step]);                       \
                const float d3 = LOAD(d[c + 3 * step]), d4 = LOAD(d[c + 4 * step]), d5 = LOAD(d[c + 5 * step]);        \
                const float even = d4 - 4 * d2, odd = d3 - 4 * d1, near = d4 - d2, far = 2 * (d3 - d1);                \
                out[c] = STORE(4 * d0 - 4 * d2 + near);                                                                \
                out[c + plane] = STORE(even + odd);                                                                    \
                out[c + 2 * plane] = STORE(even - odd);                                                                \
                out[c + 3 * plane] = STORE(near + far);                                                                \
                out[c + 4 * plane] = STORE(near - far);                                                                \
                out[c + 5 * plane] = STORE(4 * d1 - 5 * d3 + d5);                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* gate = b - 2 a b, of a, b = sigmoid of the two halves of bias + pre + A' y, for the first `rows` rows; with */  \
    /* `keep` the sigmoids take the place of pre */                                                                    \
    void gate_##NAME(const TYPE *restrict y, TYPE *restrict pre, const TYPE *restrict bias, TYPE *restrict gate,       \
                     long rows, long tiles, long dilation, long width, long keep, long threads) {                      \
        const long plane = tiles * dilation * 2 * width;                                                               \
        FOR_ROWS(tiles * dilation) {                                                                                   \
            const TYPE *restrict own = y + row * 2 * width;                                                            \
            const long first = (row / dilation) * 4 * dilation + row % dilation;                                       \
            float sums[4][2][CHANNELS];                                                                                \
            for (long begin = 0; begin < width; begin += CHANNELS) {                                                   \
                const long count = width - begin < CHANNELS ? width - begin : CHANNELS;                                \
                const TYPE *restrict offset = bias + begin;                                                            \
                for (int half = 0; half < 2; half++) {                                                                 \
                    const TYPE *restrict v = own + half * width + begin;                                               \
                    FOR_CHANNELS(count) {                                                                              \
                        const float y1 = LOAD(v[c + plane]), y2 = LOAD(v[c + 2 * plane]);                              \
                        const float y3 = LOAD(v[c + 3 * plane]), y4 = LOAD(v[c + 4 * plane]);                          \
                        const float near = y1 + y2, far = y3 + y4, near_odd = y1 - y2, far_odd = y3 - y4;              \
                        sums[0][half][c] = LOAD(v[c]) + near + far;                                                    \
                        sums[1][half][c] = near_odd + 2 * far_odd;                                                     \
                        sums[2][half][c] = near + 4 * far;                                                             \
                        sums[3][half][c] = near_odd + 8 * far_odd + LOAD(v[c + 5 * plane]);                            \
                    }                                                                                                  \
                }                                                                                                      \
                for (int i = 0; i < 4; i++) {                                                                          \
                    const long place = first + i * dilation;                                                           \
                    if (place >= rows) break;                                                                          \
                    TYPE *restrict base = pre + place * 2 * width + begin;                                             \
                    TYPE *restrict out = gate + place * width + begin;                                                 \
                    FOR_CHANNELS(count) {                                                                              \
                        const float f = LOAD(offset[c]) + LOAD(base[c]);                                               \
                        const float g = LOAD(offset[c + width]) + LOAD(base[c + width]);                               \
                        const float a = sums[i][0][c] = sigmoid(sums[i][0][c] + f);                                    \
                        const float b = sums[i][1][c] = sigmoid(sums[i][1][c] + g);                                    \
                        out[c] = STORE(b - 2 * a * b);                                                                 \
                    }                                                                                                  \
                    for (int half = 0; half < 2 && keep; half++)                                                       \
                        FOR_CHANNELS(count)                                                                            \
                            base[c + half * width] = STORE(sums[i][half][c]);                                          \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* the same without a convolution */                                                                               \
    void plain_gate_##NAME(TYPE *restrict pre, const TYPE *restrict bias, TYPE *restrict gate, long rows, long width,  \
                           long threads) {                                                                             \
        FOR_ROWS(rows) {                                                                                               \
            TYPE *restrict base = pre + row * 2 * width, *restrict out = gate + row * width;                           \
            FOR_CHANNELS(width) {                                                                                      \
                const float a = sigmoid(LOAD(bias[c]) + LOAD(base[c]));                                                \
                const float b = sigmoid(LOAD(bias[c + width]) + LOAD(base[c + width]));                                \
                base[c] = STORE(a);                                                                                    \
                base[c + width] = STORE(b);                                                                            \
                out[c] = STORE(b - 2 * a * b);                                                                         \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* x = relu(x + bias) */                                                                                           \
    void add_relu_##NAME(TYPE *restrict x, const TYPE *restrict bias, long rows, long width, long threads) {           \
        FOR_ROWS(rows) {                                                                                               \
            TYPE *restrict own = x + row * width;                                                                      \
            FOR_CHANNELS(width) {                                                                                      \
                const float sum = LOAD(own[c]) + LOAD(bias[c]);                                                        \
                own[c] = STORE(sum > 0 ? sum : 0);                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    }

// out = relu(bias + W' x): x are `size` values, of rows that begin `stride` values apart, W is (size, width)
#define DEFINE_FRONT(NAME, TYPE, STORE)                                                                                \
    void front_##NAME(const float *restrict x, const float *restrict weight, const float *restrict bias,               \
                      TYPE *restrict out, long rows, long stride, long size, long width, long threads) {               \
        FOR_ROWS(rows) {                                                                                               \
            const float *restrict own = x + row * stride;                                                              \
            float sums[CHANNELS];                                                                                      \
            for (long begin = 0; begin < width; begin += CHANNELS) {                                                   \
                const long count = width - begin < CHANNELS ? width - begin : CHANNELS;                                \
                memcpy(sums, bias + begin, count * sizeof(float));                                                     \
                for (long k = 0; k < size; k++) {                                                                      \
                    const float value = own[k], *restrict w = weight + k * width + begin;                              \
                    FOR_CHANNELS(count) sums[c] += value * w[c];                                                       \
                }                                                                                                      \
                TYPE *restrict to = out + row * width + begin;                                                         \
                FOR_CHANNELS(count) to[c] = STORE(sums[c] > 0 ? sums[c] : 0);                                          \
            }                                                                                                          \
        }                                                                                                              \
    }

#define DEFINE_TRAINING(NAME, TYPE, LOAD, STORE)                                                                       \
    /* rows of out += A' y: y is 6 planes of tiles * dilation rows of `width` */                                       \
    void outputs_##NAME(const TYPE *restrict y, TYPE *restrict out, long tiles, long dilation, long width,             \
                        long threads) {                                                                                \
        const long plane = tiles * dilation * width, step = dilation * width;                                          \
        FOR_ROWS(tiles * dilation) {                                                                                   \
            const TYPE *restrict v = y + row * width;                                                                  \
            TYPE *restrict to = out + ((row / dilation) * 4 * dilation + row % dilation) * width;                      \
            FOR_CHANNELS(width) {                                                                                      \
                const float y1 = LOAD(v[c + plane]), y2 = LOAD(v[c + 2 * plane]);                                      \
                const float y3 = LOAD(v[c + 3 * plane]), y4 = LOAD(v[c + 4 * plane]);                                  \
                const float near = y1 + y2, far = y3 + y4, near_odd = y1 - y2, far_odd = y3 - y4;                      \
                to[c] = STORE(LOAD(to[c]) + LOAD(v[c]) + near + far);                                                  \
                to[c + step] = STORE(LOAD(to[c + step]) + near_odd + 2 * far_odd);                                     \
                to[c + 2 * step] = STORE(LOAD(to[c + 2 * step]) + near + 4 * far);                                     \
                to[c + 3 * step] = STORE(LOAD(to[c + 3 * step]) + near_odd + 8 * far_odd + LOAD(v[c + 5 * plane]));    \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* y = A dy, 6 planes, of the gradients of rows */                                                                 \
    void gradients_##NAME(const TYPE *restrict grad, TYPE *restrict y, long tiles, long dilation, long width,          \
                          long threads) {                                                                              \
        const long plane = tiles * dilation * width, step = dilation * width;                                          \
        FOR_ROWS(tiles * dilation) {                                                                                   \
            const TYPE *restrict d = grad + ((row / dilation) * 4 * dilation + row % dilation) * width;                \
            TYPE *restrict to = y + row * width;                                                                       \
            FOR_CHANNELS(width) {                                                                                      \
                const float d0 = LOAD(d[c]), d1 = LOAD(d[c + step]);                                                   \
                const float d2 = LOAD(d[c + 2 * step]), d3 = LOAD(d[c + 3 * step]);                                    \
                const float even = d0 + d2, odd = d1 + d3, even_far = d0 + 4 * d2, odd_far = 2 * d1 + 8 * d3;          \
                to[c] = d[c];                                                                                          \
                to[c + plane] = STORE(even + odd);                                                                     \
                to[c + 2 * plane] = STORE(even - odd);                                                                 \
                to[c + 3 * plane] = STORE(even_far + odd_far);                                                         \
                to[c + 4 * plane] = STORE(even_far - odd_far);                                                         \
                to[c + 5 * plane] = d[c + 3 * step];                                                                   \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* pre = gradient of what a, b = `sigmoids` are of, from that of u = b - 2 a b; sums += its columns' */            \
    void gate_gradients_##NAME(const TYPE *restrict grad, const TYPE *restrict u, const TYPE *restrict sigmoids,       \
                               TYPE *restrict pre, float *restrict sums, long rows, long width, long threads) {        \
        _Pragma("omp parallel for schedule(static) num_threads(threads) reduction(+ : sums[:2 * width])")              \
        for (long row = 0; row < rows; row++) {                                                                        \
            const TYPE *restrict own = grad + row * width, *restrict v = u + row * width;                              \
            const TYPE *restrict ab = sigmoids + row * 2 * width;                                                      \
            TYPE *restrict to = pre + row * 2 * width;                                                                 \
            FOR_CHANNELS(width) {                                                                                      \
                const float g = LOAD(own[c]), b = LOAD(ab[c + width]);                                                 \
                const float product = g * LOAD(v[c]), inner = product - g * b;                                         \
                const float grad_a = inner - inner * LOAD(ab[c]), grad_b = product - product * b;                      \
                to[c] = STORE(grad_a);                                                                                 \
                to[c + width] = STORE(grad_b);                                                                         \
                sums[c] += grad_a;                                                                                     \
                sums[c + width] += grad_b;                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* rows of grad += B x, 6 planes; tiles overlap, so that each thread has channels of its own */                    \
    void input_gradients_##NAME(const TYPE *restrict x, TYPE *restrict grad, long tiles, long dilation, long width,    \
                                long threads) {                                                                        \
        const long plane = tiles * dilation * width, step = dilation * width, share = (width + threads - 1) / threads; \
        _Pragma("omp parallel for num_threads(threads)") for (long part = 0; part < threads; part++) {                 \
            const long begin = part * share, end = begin + share < width ? begin + share : width;                      \
            for (long row = 0; row < tiles * dilation; row++) {                                                        \
                const TYPE *restrict v = x + row * width;                                                              \
                TYPE *restrict to = grad + ((row / dilation) * 4 * dilation + row % dilation) * width;                 \
                _Pragma("omp simd") for (long c = begin; c < end; c++) {                                               \
                    const float d0 = LOAD(v[c]), d1 = LOAD(v[c + plane]), d2 = LOAD(v[c + 2 * plane]);                 \
                    const float d3 = LOAD(v[c + 3 * plane]), d4 = LOAD(v[c + 4 * plane]), d5 = LOAD(v[c + 5 * plane]); \
                    const float near = d1 + d2, far = d3 + d4, near_odd = d1 - d2, far_odd = d3 - d4;                  \
                    to[c] = STORE(LOAD(to[c]) + 4 * d0);                                                               \
                    to[c + step] = STORE(LOAD(to[c + step]) - 4 * near_odd - 2 * far_odd + 4 * d5);                    \
                    to[c + 2 * step] = STORE(LOAD(to[c + 2 * step]) - 5 * d0 - 4 * near - far);                        \
                    to[c + 3 * step] = STORE(LOAD(to[c + 3 * step]) + near_odd + 2 * far_odd - 5 * d5);                \
                    to[c + 4 * step] = STORE(LOAD(to[c + 4 * step]) + d0 + near + far);                                \
                    to[c + 5 * step] = STORE(LOAD(to[c + 5 * step]) + d5);                                             \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

#define CHANNELS 256
DEFINE_TRAINING(float, float, load_float, store_float)
DEFINE_TRAINING(bf16, uint16_t, load_bf16, store_bf16)
DEFINE_FRONT(float, float, store_float)
DEFINE_FRONT(bf16, uint16_t, store_bf16)
DEFINE(float, float, load_float, store_float)
DEFINE(bf16, uint16_t, load_bf16, store_bf16)

static inline float squares(const float *restrict v, long size) {
    float sum = 0;
    _Pragma("omp simd reduction(+ : sum)") for (long c = 0; c < size; c++) sum += v[c] * v[c];
    return sum;
}

// rows of out = g v / |v|
void normalise(const float *restrict v, const float *restrict g, float *restrict out, long rows, long size,
               long threads) {
    FOR_ROWS(rows) {
        const float *restrict own = v + row * size;
        const float factor = g[row] / sqrtf(squares(own, size));
        float *restrict to = out + row * size;
        FOR_CHANNELS(size) to[c] = factor * own[c];
    }
}

// grad, of w = g v / |v|, becomes that of v; grad_g is that of g
static inline void normalise_row(float *restrict grad, const float *restrict v, float g, float *restrict grad_g,
                                 long size) {
    float product = 0;
    _Pragma("omp simd reduction(+ : product)") for (long c = 0; c < size; c++) product += grad[c] * v[c];
    const float square = squares(v, size), norm = sqrtf(square), factor = g / norm, along = product / square;
    *grad_g = product / norm;
    FOR_CHANNELS(size) grad[c] = factor * (grad[c] - along * v[c]);
}

void normalise_gradients(float *restrict grad, const float *restrict v, const float *restrict g,
                         float *restrict grad_g, long rows, long size, long threads) {
    FOR_ROWS(rows) normalise_row(grad + row * size, v + row * size, g[row], grad_g + row, size);
}

// out, 6 planes of (rows, size), = G w of three taps w = g v / |v|, v is (rows, size, 3)
void winograd_weights(const float *restrict v, const float *restrict g, float *restrict out, long rows, long size,
                      long threads) {
    const long plane = rows * size;
    FOR_ROWS(rows) {
        const float *restrict own = v + row * size * 3;
        const float factor = g[row] / sqrtf(squares(own, 3 * size));
        float *restrict to = out + row * size;
        FOR_CHANNELS(size) {
            const float w0 = factor * own[3 * c], w1 = factor * own[3 * c + 1], w2 = factor * own[3 * c + 2];
            const float both = w0 + w2, far = w0 + 4 * w2;
            to[c] = w0 / 4;
            to[c + plane] = (both + w1) * (-1.0f / 6);
            to[c + 2 * plane] = (both - w1) * (-1.0f / 6);
            to[c + 3 * plane] = (far + 2 * w1) * (1.0f / 24);
            to[c + 4 * plane] = (far - 2 * w1) * (1.0f / 24);
            to[c + 5 * plane] = w2;
        }
    }
}

// from the gradient of winograd_weights' out: that of v, and grad_g
void winograd_weight_gradients(const float *restrict grad, const float *restrict v, const float *restrict g,
                               float *restrict grad_v, float *restrict grad_g, long rows, long size, long threads) {
    const long plane = rows * size;
    FOR_ROWS(rows) {
        const float *restrict u = grad + row * size;
        float *restrict to = grad_v + row * size * 3;
        FOR_CHANNELS(size) {
            const float u1 = u[c + plane], u2 = u[c + 2 * plane], u3 = u[c + 3 * plane], u4 = u[c + 4 * plane];
            const float near = (u1 + u2) * (-1.0f / 6), far = u3 + u4;
            to[3 * c] = u[c] / 4 + near + far * (1.0f / 24);
            to[3 * c + 1] = (u1 - u2) * (-1.0f / 6) + (u3 - u4) * (1.0f / 12);
            to[3 * c + 2] = u[c + 5 * plane] + near + far * (1.0f / 6);
        }
        normalise_row(to, v + row * size * 3, g[row], grad_g + row, 3 * size);
    }
}

// work(0), ..., work(threads - 1), a thread each
void in_threads(void (*work)(long), long threads) {
    _Pragma("omp parallel for schedule(static, 1) num_threads(threads)")
    for (long thread = 0; thread < threads; thread++) work(thread);
}
