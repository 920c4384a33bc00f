# docker build -f docker/tpu.Dockerfile -t hotshot-jax:tpu .
# docker run --privileged --net host -v "$PWD:/work" hotshot-jax:tpu --prompt "a red circle growing on a black background"
FROM python:3.12-slim
WORKDIR /opt/hotshot-jax
COPY . .
RUN pip install --no-cache-dir -c constraints.txt ".[tpu,train,control]"
# Compiled programs and models outlive a container where these folders are mounted.
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface
RUN mkdir -p /cache
WORKDIR /work
ENTRYPOINT ["hotshot-jax"]
