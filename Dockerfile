# Build: all dependencies, compile src to dist and native to native/build.
FROM node:24-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY nest-cli.json tsconfig.json tsconfig.build.json ./
COPY scripts/build-native.mjs ./scripts/
COPY native ./native
COPY src ./src
RUN npm run build

# Production dependencies alone, cached apart from the source.
FROM node:24-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

# Runtime: files owned by root, run by a user that cannot write to them.
FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json openapi.yaml asyncapi.yaml ./
COPY --from=build /app/native/build ./native/build
COPY --from=build /app/dist ./dist

# A number, so that an orchestrator can check "not root" without reading /etc/passwd (1000 is `node`).
USER 1000:1000
EXPOSE 3000
STOPSIGNAL SIGTERM

# Liveness only: it never depends on Redis. Orchestrators with probes of their own use /health/ready too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/health/live`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]

# Exec form: node is process 1, gets SIGTERM itself and drains. Give it longer than
# DRAIN_DELAY_MS + DRAIN_TIMEOUT_MS before the kill (docker stop --time 35).
# The young generation stays at 16 MB: a smaller one costs CPU in a storm of connects, the larger one of Node 24 costs
# 60 MB and saves none.
CMD ["node", "--min-semi-space-size=16", "--max-semi-space-size=16", "dist/main.js"]
